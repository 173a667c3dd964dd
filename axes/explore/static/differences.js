// The page of differences: two versions of a model, by layer and along axes.

import { literal, remember, sqlLink } from "./address.js";
import { drawn } from "./chart.js";
import { brief, choice, element, field, note, plainTable } from "./dom.js";
import { get } from "./server.js";

const MEASURES = { relative_norm: "norm of the difference, relative to the first", cosine: "cosine of both activations", mean_share: "share that the mean difference makes" };

export async function showDifferences(main, given, left) {
  const { comparisons, study, layers, moves } = await get("differences", given, left);
  if (!comparisons.length) return main.append(note("No two versions of a model are compared yet: axes diff FIRST SECOND --prompts SET"));
  remember("differences", { study });
  const { first, second, prompt_set } = comparisons.find(({ study_id }) => study_id === study);
  const place = element("div", { class: "chart scroll", role: "img", "aria-label": `${second} minus ${first} by layer` });
  const link = (view) => element("a", { href: sqlLink(`from ${view}\nwhere study_id = ${literal(study)}`) }, `${view} as SQL`);
  main.append(
    element("div", { class: "bar" }, field("Comparison", choice(comparisons.map((one) =>
      [one.study_id, `${one.second} minus ${one.first}, on ${one.prompt_set}`]), study, (value) => (location.hash = `#/differences?${new URLSearchParams({ study: value })}`)), "grow")),
    element("h2", {}, `${second} minus ${first}, on ${prompt_set}`),
    element("p", { class: "links" }, link("v_model_differences"), link("v_axis_moves")),
    place,
    note("By layer: the mean norm of the difference relative to the first version, the mean cosine of both, and the share of the squared differences that their mean makes (near 1: all prompts moved alike)."),
    element("h2", {}, "Moves along axes"),
    plainTable("Moves along axes", ["Axis", "Kind", "Layer", "Moved (SD)", "95 % interval", "Cosine", "p", "Share"], moves.map((one) => [
      element("a", { href: `#/axis?${new URLSearchParams({ axis: one.axis_id })}` }, one.axis_name), one.kind, one.layer, one.moved,
      one.moved === null ? "" : `${brief(one.moved_lower)} to ${brief(one.moved_upper)}`, one.cosine, one.p_value, one.axis_share])),
    note("Moved: the mean change of the projections, in standard deviations of the first version. Cosine: of the axis with the mean difference; p compares it with random directions. Share: of the squared differences along an axis of the comparison itself."));
  const rows = layers.flatMap((row) => Object.entries(MEASURES).map(([key, text]) => [row.layer, row[key], text]));
  await drawn(place, [["layer", "number"], [null, "number"], [null, "text"]].map(([name, kind]) => ({ name, kind })), rows,
    { x: 0, y: 1, colour: -1, shape: -1, panel: 2, mark: "line" }, { resolve: { scale: { y: "independent" } } });
}
