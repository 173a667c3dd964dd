// The page of layers: a heat map of the models' own directions.

import { literal, remember, sqlLink } from "./address.js";
import { drawn } from "./chart.js";
import { choice, element, field, note, plainTable } from "./dom.js";
import { get } from "./server.js";

const VALUES = {
  auroc: { text: "AUROC", from: 0.5, meaning: "AUROC of each model's direction at each layer, on this prompt set. Where the directions were fitted on these prompts it is in sample, and high in many dimensions: compare layers, not values." },
  out_of_fold: { text: "AUROC out of fold", from: 0.5, meaning: "AUROC on prompts that the fold's direction was not fitted on (axes evaluate). The best layer is chosen on the prompts shown: an upper bound, not a result." },
  cosine: { text: "Cosine with the layer before", from: 1, meaning: "Cosine of each model's direction with its direction at the layer before: near 1 where the direction stays the same from layer to layer." },
};

export async function showLayers(main, given, left) {
  const [{ sets }, found] = await Promise.all([get("choices", {}, left), get("layers", { ...given, value: undefined }, left)]);
  if (!found.families.length) return main.append(note("This warehouse has no direction of a model yet: axes fit MODEL --prompts SET"));
  const has = (value) => found.cells.some((cell) => typeof cell[value] === "number");
  const values = Object.keys(VALUES).filter(has);
  const value = values.includes(given.value) ? given.value : values[0] ?? "auroc";
  const seen = { family: found.family, prompt_set: found.prompt_set, value };
  remember("layers", seen);
  const go = (changes) => (location.hash = `#/layers?${new URLSearchParams({ ...seen, ...changes })}`);
  main.append(element("div", { class: "bar" },
    field("Directions", choice(found.families.map(({ family }) => [family, family.replace(/, \w+$/, "")]), found.family, (family) => go({ family, prompt_set: "" })), "grow"),
    field("Prompt set", choice(sets.map(({ name }) => [name, name]), found.prompt_set, (prompt_set) => go({ prompt_set }))),
    field("Value", choice(values.map((name) => [name, VALUES[name].text]), value, (name) => go({ value: name }))),
    element("a", { href: sqlLink(`from v_auroc\nwhere kind = 'native' and prompt_set = ${literal(found.prompt_set)}\norder by model, layer`) }, "v_auroc as SQL")));
  const cells = found.cells.filter((cell) => typeof cell[value] === "number");
  if (!cells.length) return main.append(note("These directions have no value on this prompt set: axes score"));
  const { text, from, meaning } = VALUES[value];
  const models = [...new Set(cells.map(({ model }) => model))].sort();
  const rows = [...new Set(cells.map(({ layer }) => layer))];
  const place = element("div", { class: "chart scroll", role: "img", "aria-label": `${text} of ${models.join(", ")} by layer; the numbers are in the table below` });
  const at = new Map(cells.map((cell) => [`${cell.layer} ${cell.model}`, cell]));
  main.append(place, note(`${meaning} A click on a square or a number opens the axis.`),
    plainTable(`${text} by layer`, ["Layer", ...models], rows.map((layer) => [`${layer}`, ...models.map((model) => {
      const cell = at.get(`${layer} ${model}`);
      return cell ? element("a", { href: link(cell) }, cell[value].toFixed(3)) : "";
    })])));
  // On a phone layers run down, where there is room.
  const [x, y, height] = place.clientWidth < 600 ? [1, 0, 60 + 16 * rows.length] : [0, 1, 90 + 44 * models.length];
  const shown = cells.map((cell) => cell[value]);
  const view = await drawn(place, [["layer", "ordinal"], ["model", "text"], [text, "number"]].map(([name, kind]) => ({ name, kind })),
    cells.map((cell) => [cell.layer, cell.model, cell[value], link(cell)]), { x, y, colour: 2, shape: -1, panel: -1, mark: "rect" }, {
      height,
      encoding: {
        color: { field: "c2", type: "quantitative", title: text, scale: { scheme: "viridis", domain: [Math.min(from, ...shown), Math.max(...shown)] } },
        tooltip: ["layer", "model", text].map((title, index) => ({ field: `c${index}`, title, ...(index === 2 && { format: ".3f" }) })),
      },
    });
  view?.addEventListener("click", (_, item) => {
    if (item?.datum?.c3) location.hash = item.datum.c3;
  });
}

const link = ({ axis_id }) => `#/axis?${new URLSearchParams({ axis: axis_id })}`;
