// The page of two axes: a point for each prompt, and the SQL of those in a box.

import { literal, remember, rememberSoon, sqlLink } from "./address.js";
import { drawn } from "./chart.js";
import { choice, counted, element, field, note, plainTable } from "./dom.js";
import { textOf, uncoverAll } from "./hidden.js";
import { get } from "./server.js";

const SHOWN = 25;
// A box is these four numbers; a missing one leaves its side open.
const EDGES = ["x from", "x to", "y from", "y to"];
const CONDITIONS = ["x.projection >=", "x.projection <=", "y.projection >=", "y.projection <="];

export async function showScatter(main, given, left) {
  const { sets } = await get("choices", {}, left);
  const prompt_set = given.prompt_set ?? (sets.find(({ labels }) => labels) ?? sets[0])?.name;
  const { readouts, points, ...axes } = await get("scatter", { ...given, prompt_set }, left);
  if (!readouts.length) return main.append(note("This warehouse has no projections on an axis yet: axes study or axes fit"));
  const asked = { prompt_set, ...axes, box: given.box };
  remember("scatter", asked);
  const go = (changes) => (location.hash = `#/scatter?${new URLSearchParams({ ...asked, box: "", ...changes })}`);
  const names = {};
  const pick = (axis) => {
    const place = readouts.findIndex(({ axis_id, model_id }) => axis_id === asked[axis] && model_id === asked[`${axis}_model`]);
    names[axis] = place < 0 ? [axis] : [readouts[place].model, readouts[place].name];
    return choice(readouts.map(({ name, model }, index) => [`${index}`, `${model} · ${name}`]), `${place}`, (index) =>
      go({ [axis]: readouts[index].axis_id, [`${axis}_model`]: readouts[index].model_id }));
  };
  main.append(element("div", { class: "bar" },
    field("Prompt set", choice(sets.map(({ name, prompt_count }) => [name, `${name} (${prompt_count})`]), prompt_set, (value) => go({ prompt_set: value }))),
    field("Horizontal axis (x)", pick("x"), "grow"), field("Vertical axis (y)", pick("y"), "grow")));
  if (!points.length) return main.append(note("No prompt of this set has a projection on both: axes score"));
  const [{ total, correlation }] = points;
  const share = total > points.length ? `the first ${points.length} of ${total} prompts` : counted(total, "prompt");
  const place = element("div", { class: "chart scroll brushed", role: "img", "aria-label": `${share}: ${names.y.join(" ")} by ${names.x.join(" ")}` });
  const inputs = EDGES.map(() => element("input", { type: "number", step: "any", onchange: () => type(inputs.map(({ value }) => (value === "" ? undefined : Number(value)))) }));
  const status = element("p", { class: "status", role: "status" });
  const result = element("div", {});
  main.append(place,
    note(`${share}; correlation ${correlation?.toFixed?.(3) ?? "not defined"}. Drag over the chart, or type the box's edges, to select prompts.`),
    element("div", { class: "bar", role: "group", "aria-label": "Box" }, ...inputs.map((input, index) => field(EDGES[index], input, "edge")),
      element("button", { type: "button", onclick: () => type([]) }, "Clear box")),
    status, result);

  const select = (box, keep) => {
    asked.box = box.some((edge) => edge !== undefined) ? EDGES.map((_, index) => box[index] ?? "").join(",") : undefined;
    keep("scatter", asked);
    inputs.forEach((input, index) => (input.value = box[index] ?? ""));
    const inside = points.filter(({ x, y }) => x >= (box[0] ?? x) && x <= (box[1] ?? x) && y >= (box[2] ?? y) && y <= (box[3] ?? y));
    status.textContent = asked.box ? `${counted(inside.length, "prompt")} of ${points.length} in the box` : `No box: all ${points.length} prompts are selected`;
    result.replaceChildren(...selected(inside, statement(asked, box)));
  };
  /** A box that was not dragged is drawn. */
  const type = async (box) => {
    select(box, remember);
    const columns = [[names.x, "number"], [names.y, "number"], ["label", "text"], ["prompt", "text"]].map(([name, kind]) => ({ name, kind }));
    const range = (axis, at) => [box[at] ?? Math.min(...points.map((point) => point[axis])), box[at + 1] ?? Math.max(...points.map((point) => point[axis]))];
    const view = await drawn(place, columns, points.map(({ x, y, label, text }) => [x, y, label, text]), { x: 0, y: 1, colour: 2, shape: 2, panel: -1, mark: "point" }, {
      params: [{ name: "box", select: "interval", ...(asked.box && { value: { x: range("x", 0), y: range("y", 2) } }) }],
      height: 420,
      encoding: {
        opacity: { condition: { param: "box", value: 0.8 }, value: 0.15 },
        tooltip: ["x", "y", "label", "prompt"].map((title, index) => ({ field: `c${index}`, title, ...(index < 2 && { format: ".4" }) })),
      },
    });
    view?.addSignalListener("box", (_, { c0 = [], c1 = [] }) => select([...c0, ...c1].map((edge) => Number(edge.toPrecision(5))), rememberSoon));
  };
  type((asked.box ?? "").split(",").map((edge) => (edge === "" || Number.isNaN(Number(edge)) ? undefined : Number(edge))));
}

function selected(inside, sql) {
  const shown = element("pre", { class: "scroll statement", tabindex: "0", "aria-label": "SQL of the selected prompts" }, sql);
  const copy = element("button", { type: "button", onclick: async () => {
    getSelection().selectAllChildren(shown);
    await navigator.clipboard.writeText(sql).then(() => (copy.textContent = "Copied"), () => (copy.textContent = "Press Ctrl+C"));
  } }, "Copy SQL");
  const table = plainTable("Selected prompts", ["Prompt", "Label", "x", "y"], inside.slice(0, SHOWN).map(({ text, label, x, y }) => [textOf(text), label, x, y]));
  return [
    element("div", { class: "bar" }, copy, element("a", { href: sqlLink(sql) }, "Open as SQL"), table.querySelector(".covered") ? uncoverAll(table) : null),
    shown, table,
    ...(inside.length > SHOWN ? [note(`The first ${SHOWN} of them; the statement has all.`)] : []),
  ];
}

const statement = ({ prompt_set, x, x_model, y, y_model }, box) => `select x.prompt_id, x.text, x.label, x.projection as x, y.projection as y
from v_projections as x
join projections as y using (prompt_id)
where x.prompt_set = ${literal(prompt_set)}
    and x.axis_id = ${literal(x)} and x.model_id = ${literal(x_model)}
    and y.axis_id = ${literal(y)} and y.model_id = ${literal(y_model)}
${CONDITIONS.flatMap((condition, index) => (box[index] === undefined ? [] : [`    and ${condition} ${box[index]}\n`])).join("")}order by x.projection desc, x.prompt_id`;
