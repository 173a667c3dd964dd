// The page of two axes: a point for each prompt, and the SQL of those in a box.

import { literal, remember, rememberSoon, sqlLink } from "./address.js";
import { drawn } from "./chart.js";
import { choice, counted, element, field, plainTable } from "./dom.js";
import { textOf, uncoverAll } from "./hidden.js";
import { get } from "./server.js";

const SHOWN = 25;
const EDGES = { x0: "x from", x1: "x to", y0: "y from", y1: "y to" };

export async function showScatter(main, given, left) {
  const { sets } = await get("choices", {}, left);
  const asked = { prompt_set: (sets.find(({ labels }) => labels) ?? sets[0])?.name, ...given };
  const found = sets.length ? await get("scatter", { ...asked, box: undefined }, left) : { readouts: [] };
  if (!found.readouts.length) {
    main.append(element("p", { class: "note" }, "This warehouse has no projections on an axis yet: axes study or axes fit"));
    return;
  }
  const { x, x_model, y, y_model } = found;
  const seen = { prompt_set: asked.prompt_set, x, x_model, y, y_model, box: asked.box };
  remember("scatter", seen);
  const go = (changes) => (location.hash = `#/scatter?${new URLSearchParams({ ...seen, box: "", ...changes })}`);
  const readouts = found.readouts.map(({ axis_id, model_id, name, model }) => [`${model_id} ${axis_id}`, `${model} · ${name}`]);
  const pick = (axis) => choice(readouts, `${seen[`${axis}_model`]} ${seen[axis]}`, (value) => {
    const at = value.indexOf(" ");
    go({ [`${axis}_model`]: value.slice(0, at), [axis]: value.slice(at + 1) });
  });
  const [nameX, nameY] = ["x", "y"].map((axis) => readouts.find(([value]) => value === `${seen[`${axis}_model`]} ${seen[axis]}`)?.[1] ?? seen[axis]);
  main.append(element("div", { class: "bar" },
    field("Prompt set", choice(sets.map(({ name, prompt_count }) => [name, `${name} (${prompt_count})`]), asked.prompt_set, (value) => go({ prompt_set: value }))),
    field("Horizontal axis (x)", pick("x"), "grow"), field("Vertical axis (y)", pick("y"), "grow")));
  const { points } = found;
  if (!points.length) {
    main.append(element("p", { class: "note" }, "No prompt of this set has a projection on both: axes score"));
    return;
  }
  const share = found.total > points.length ? `the first ${points.length} of ${counted(found.total, "prompt")}` : counted(found.total, "prompt");
  const place = element("div", { class: "chart scroll brushed", role: "img", "aria-label": `${share}: ${nameY} by ${nameX}` });
  const edges = Object.fromEntries(Object.entries(EDGES).map(([key, text]) =>
    [key, element("input", { type: "number", step: "any", inputmode: "decimal", "aria-label": `Box: ${text}`, onchange: () => select(read(), true) })]));
  const read = () => Object.fromEntries(Object.entries(edges).filter(([, input]) => input.value !== "").map(([key, input]) => [key, Number(input.value)]));
  const status = element("p", { class: "status", role: "status" });
  const result = element("div", {});
  main.append(place,
    element("p", { class: "note" }, `${share}; correlation ${found.correlation?.toFixed?.(3) ?? "not defined"}. Drag over the chart, or type the box's edges, to select prompts.`),
    element("div", { class: "bar", role: "group", "aria-label": "Box" }, ...Object.entries(edges).map(([key, input]) => field(EDGES[key], input, "edge")),
      element("button", { type: "button", onclick: () => select({}, true) }, "Clear box")),
    status, result);

  /** What lies in the box, whose missing edges are open; `isTyped` boxes are drawn. */
  const select = (box, isTyped) => {
    for (const [key, input] of Object.entries(edges)) if (document.activeElement !== input || !isTyped) input.value = box[key] ?? "";
    seen.box = Object.keys(box).length ? Object.keys(EDGES).map((key) => box[key] ?? "").join(",") : undefined;
    (isTyped ? remember : rememberSoon)("scatter", seen);
    const inside = points.filter((point) => ["x", "y"].every((axis) =>
      point[axis] >= (box[`${axis}0`] ?? -Infinity) && point[axis] <= (box[`${axis}1`] ?? Infinity)));
    status.textContent = seen.box ? `${counted(inside.length, "prompt")} of ${points.length} in the box` : `No box: all ${counted(points.length, "prompt")} are selected`;
    result.replaceChildren(...selected(inside, statement(seen, box)));
    if (isTyped) draw(box);
  };
  const draw = async (box) => {
    const isBoxed = (axis) => `${axis}0` in box || `${axis}1` in box;
    const range = (axis) => [box[`${axis}0`] ?? Math.min(...points.map((point) => point[axis])), box[`${axis}1`] ?? Math.max(...points.map((point) => point[axis]))];
    const columns = [[nameX.split(" · "), "number"], [nameY.split(" · "), "number"], ["label", "text"], ["prompt", "text"]].map(([name, kind]) => ({ name, kind }));
    const view = await drawn(place, columns, points.map((point) => [point.x, point.y, point.label, point.text]),
      { x: 0, y: 1, colour: 2, shape: 2, panel: -1, mark: "point" }, {
        params: [{ name: "box", select: "interval", ...(seen.box && { value: { x: range("x"), y: range("y") } }) }],
        height: 420,
        encoding: {
          opacity: { condition: { param: "box", value: 0.8 }, value: 0.15 },
          tooltip: ["x", "y", "label", "prompt"].map((title, index) => ({ field: `c${index}`, title, ...(index < 2 && { format: ".4" }) })),
        },
      });
    view?.addSignalListener("box", (_, { c0 = [], c1 = [] }) => select(Object.fromEntries(
      Object.entries({ x0: c0[0], x1: c0[1], y0: c1[0], y1: c1[1] }).flatMap(([key, value]) => (value === undefined ? [] : [[key, Number(value.toPrecision(5))]]))), false));
  };
  const numbers = (asked.box ?? "").split(",");
  select(Object.fromEntries(Object.keys(EDGES).flatMap((key, index) => (numbers[index] && Number.isFinite(Number(numbers[index])) ? [[key, Number(numbers[index])]] : []))), true);
}

function selected(inside, sql) {
  const shown = element("pre", { class: "statement", tabindex: "0", "aria-label": "SQL of the selected prompts" }, sql);
  const copy = element("button", { type: "button", onclick: async () => {
    getSelection().selectAllChildren(shown);
    await navigator.clipboard.writeText(sql).then(() => (copy.textContent = "Copied"), () => (copy.textContent = "Press Ctrl+C"));
  } }, "Copy SQL");
  const table = plainTable("Selected prompts", ["Prompt", "Label", "x", "y"], inside.slice(0, SHOWN).map(({ text, label, x, y }) => [textOf(text), label, x, y]));
  return [
    element("div", { class: "bar" }, copy, element("a", { href: sqlLink(sql) }, "Open as SQL"), table.querySelector(".covered") ? uncoverAll(table) : null),
    shown,
    table,
    inside.length > SHOWN ? element("p", { class: "note" }, `The first ${SHOWN} of them; the statement has all.`) : null,
  ].filter(Boolean);
}

/** The selected prompts as a statement. */
const statement = ({ prompt_set, x, x_model, y, y_model }, box) => {
  const edges = Object.entries({ x0: "x.projection >=", x1: "x.projection <=", y0: "y.projection >=", y1: "y.projection <=" });
  return `select x.prompt_id, x.text, x.label, x.projection as x, y.projection as y
from v_projections as x
join projections as y using (prompt_id)
where x.prompt_set = ${literal(prompt_set)}
    and x.axis_id = ${literal(x)} and x.model_id = ${literal(x_model)}
    and y.axis_id = ${literal(y)} and y.model_id = ${literal(y_model)}
${edges.filter(([key]) => key in box).map(([key, text]) => `    and ${text} ${box[key]}\n`).join("")}order by x.projection desc, x.prompt_id`;
};
