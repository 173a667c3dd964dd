// The page of an axis: its card, the prompts at its ends, a histogram by label, other axes.

import { remember, sqlLink } from "./address.js";
import { histogram } from "./curve.js";
import { brief, choice, element, field, note, plainTable } from "./dom.js";
import { textOf, uncoverAll } from "./hidden.js";
import { get } from "./server.js";

export async function showAxis(main, given, left) {
  const axes = (await get("choices", {}, left)).axes.filter(({ source }) => source === "axis");
  const asked = { axis: given.axis ?? axes[0]?.axis_id, model: given.model, prompt_set: given.prompt_set };
  if (!asked.axis) return main.append(note("This warehouse has no projections on an axis yet: axes study or axes fit"));
  const found = await get("axis", asked, left);
  const go = (changes) => (location.hash = `#/axis?${new URLSearchParams(changes)}`);
  const { axis, model, prompt_set } = found;
  remember("axis", { axis, model, prompt_set });
  const rows = found.aurocs.map((row, index) => [`${index}`, `${row.model} on ${row.prompt_set}`]);
  const place = found.aurocs.findIndex((row) => row.model_id === model && row.prompt_set === prompt_set);
  const labels = [...new Set(found.histogram.map(({ label }) => label))];
  const ends = [found.prompts.filter(({ place: at }) => at <= 10), found.prompts.filter(({ place: at }) => at > 10)];
  const promptTable = (label, prompts) => plainTable(label, ["Projection", "Label", "Prompt"],
    prompts.map((prompt) => [prompt.projection, prompt.label, textOf(prompt.text)]));
  const listed = axes.some(({ axis_id }) => axis_id === axis) ? axes : [found.card, ...axes];
  const controls = element("div", { class: "bar" },
    field("Axis", choice(listed.map(({ axis_id, name }) => [axis_id, name]), axis, (value) => go({ axis: value }))),
    rows.length ? field("Projections", choice(rows, `${place}`, (index) =>
      go({ axis, model: found.aurocs[index].model_id, prompt_set: found.aurocs[index].prompt_set }))) : null);
  const { query, ...card } = found.card;
  const facts = Object.entries(card).filter(([, value]) => value !== null && value !== "");
  main.append(...[
    controls,
    element("h2", {}, found.card.name),
    element("dl", { class: "readout" }, ...facts.map(([name, value]) =>
      element("div", {}, element("dt", {}, name.replaceAll("_", " ")), element("dd", {}, brief(value))))),
    element("p", { class: "links" },
      query ? element("a", { href: sqlLink(query) }, "Rows that it was fitted on") : null,
      model ? element("a", { href: `#/scatter?${new URLSearchParams({ prompt_set, x: axis, x_model: model })}` }, "With another axis") : null),
    ...(found.histogram.length ? [
      element("h2", {}, `Projections: ${rows[place][1]}`),
      element("p", { class: "scale" }, ...labels.map((label, index) =>
        element("span", {}, element("span", { class: `swatch bar-${index % 4}` }), ` ${label}`))),
      histogram(found.histogram, labels, main.clientWidth),
      element("h2", {}, "Highest prompts"), promptTable("Highest prompts", ends[0]),
      element("h2", {}, "Lowest prompts"), promptTable("Lowest prompts", ends[1]),
    ] : [note("No projection on this axis is stored: axes score")]),
    element("h2", {}, "AUROC"),
    plainTable("AUROC", ["Model", "Prompt set", "AUROC", "In sample", "Positive", "Negative"], found.aurocs.map((row) =>
      [row.model, row.prompt_set, row.auroc, row.is_in_sample ? "yes" : "no", row.positive_count, row.negative_count])),
    element("h2", {}, "Cosines with other axes"),
    plainTable("Cosines with other axes", ["Axis", "Kind", "Cosine"], found.cosines.map((other) =>
      [element("a", { href: `#/axis?${new URLSearchParams({ axis: other.axis_id })}` }, other.name), other.kind, other.cosine])),
  ].filter(Boolean));
  if (main.querySelector(".covered")) controls.append(uncoverAll(main));
}
