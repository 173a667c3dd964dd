// The page of prompts: every model's projection beside the others', most disagreed-on first.

import { remember } from "./address.js";
import { brief, choice, counted, element, errorLine, field, note, pager } from "./dom.js";
import { textOf, uncoverAll } from "./hidden.js";
import { get } from "./server.js";

const SEARCH_WAIT = 200;

export async function showPrompts(main, given, left) {
  const { sets, axes } = await get("choices", {}, left);
  if (!sets.length) return main.append(note("This warehouse has no prompts yet: axes prompts import demo_safety"));
  const asked = {
    prompt_set: (sets.find(({ labels }) => labels) ?? sets[0]).name, axis: axes[0]?.axis_id, source: axes[0]?.source, scale: "rank",
    order: axes.length ? "disagreement" : "position", is_descending: "true", ...given,
  };
  if (!axes.length) asked.order = "position";
  const chosenSet = () => sets.find(({ name }) => name === asked.prompt_set) ?? sets[0];
  const controls = element("div", { class: "bar" });
  const status = element("p", { class: "status", role: "status" });
  const rows = element("div", {});
  main.append(controls, status, rows);

  const set = (changes) => {
    Object.assign(asked, { page: 0 }, changes);
    return load();
  };
  let waiting = 0;
  const search = element("input", { type: "search", value: asked.search ?? "", placeholder: "words in the text" });
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => set({ search: search.value }), SEARCH_WAIT);
  });
  const listed = (values, all) => [["", all], ...(values ?? []).map((value) => [value, value])];
  const drawControls = () => controls.replaceChildren(
    field("Prompt set", choice(sets.map(({ name, prompt_count }) => [name, `${name} (${prompt_count})`]), asked.prompt_set,
      (value) => {
        Object.assign(asked, { prompt_set: value, label: "", category: "" });
        drawControls();
        set({});
      })),
    ...(axes.length ? [field("Projected on", choice(axes.map(({ axis_id, source, name, model_count }) =>
      [`${source} ${axis_id}`, `${name} (${counted(model_count, "model")})`]),
      `${asked.source} ${asked.axis}`, (value) => {
        const [source, axis] = value.split(" ");
        set({ source, axis, scale: "rank", order: asked.order === "model" ? "disagreement" : asked.order });
      }))] : []),
    field("Label", choice(listed(chosenSet().labels, "any"), asked.label ?? "", (label) => set({ label }))),
    field("Category", choice(listed(chosenSet().categories, "any"), asked.category ?? "", (category) => set({ category }))),
    field("Search", search, "grow"),
  );

  let asking = new AbortController();
  left.addEventListener("abort", () => asking.abort());
  const load = async () => {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    remember("prompts", asked);
    const started = performance.now();
    try {
      const found = await get("prompts", asked, signal);
      if (!found.models.some(({ is_calibrated }) => is_calibrated)) asked.scale = "rank";
      rows.replaceChildren(...page(found, asked, set));
      status.textContent = `${counted(found.total, "prompt")}, ${Math.round(performance.now() - started)} ms`;
    } catch (error) {
      if (!signal.aborted) rows.replaceChildren(errorLine(error.message));
    }
  };
  drawControls();
  await load();
}

function page(found, asked, set) {
  const columns = [
    { key: "position", text: "Prompt" },
    { text: "Label" },
    { text: "Category" },
    ...found.models.map(({ model_id, model }) => ({ key: "model", model: model_id, text: model })),
    ...(found.models.length > 1 ? [{ key: "disagreement", text: "Disagreement" }, { key: "mean", text: "Mean" }] : []),
    { text: "Completions" },
  ];
  const isSorted = (column) => column.key && column.key === asked.order && (column.key !== "model" || column.model === asked.model);
  const sort = (column) => {
    const isDescending = isSorted(column) ? asked.is_descending !== "true" : column.key !== "position";
    set({ order: column.key, model: column.model, is_descending: `${isDescending}` });
  };
  const header = element("tr", {}, ...columns.map((column) =>
    element("th", {
      scope: "col",
      "aria-sort": isSorted(column) ? (asked.is_descending === "true" ? "descending" : "ascending") : null,
    }, column.key ? element("button", { type: "button", onclick: () => sort(column) }, column.text) : column.text)));
  const body = found.prompts.map((prompt) => element("tr", {},
    element("td", { class: "text" }, textOf(prompt.text)),
    element("td", { "data-label": "label" }, prompt.label ? element("span", { class: "tag" }, prompt.label) : ""),
    element("td", { "data-label": "category" }, prompt.category ?? ""),
    ...found.models.map(({ model_id, model }) => element("td", { "data-label": model }, place(prompt.models[model_id], asked.scale))),
    ...(found.models.length > 1 ? [
      element("td", { "data-label": "disagreement" }, share(prompt.disagreement)),
      element("td", { "data-label": "mean" }, share(prompt.mean)),
    ] : []),
    element("td", { "data-label": "completions" }, prompt.completion_count
      ? element("a", { href: `#/steps?prompt_id=${encodeURIComponent(prompt.prompt_id)}` }, `${prompt.completion_count}`) : "0"),
  ));
  const table = element("div", { class: "scroll" },
    element("table", { class: "cards", "aria-label": "Prompts" }, element("thead", {}, header), element("tbody", {}, ...body)));
  const sorts = columns.filter(({ key }) => key).map((column, index) => [`${index}`, column]);
  const isCalibrated = found.models.length && found.models.every(({ is_calibrated }) => is_calibrated) && asked.source === "axis";
  return [
    element("div", { class: "bar" },
      field("Sort by", choice(sorts.map(([index, { text }]) => [index, text]),
        sorts.find(([, column]) => isSorted(column))?.[0] ?? "0", (index) => sort(sorts[Number(index)][1]))),
      ...(isCalibrated ? [field("Compare by", choice([["rank", "rank in the set"], ["probability", "calibrated probability"]],
        asked.scale, (scale) => set({ scale })))] : []),
      table.querySelector(".covered") ? uncoverAll(table) : null),
    table,
    pager(found, "prompt", (number) => set({ page: number })),
    note(asked.scale === "rank"
      ? "A bar runs from the lowest projection of the set to the highest, model by model; the number is the projection. Disagreement is the largest distance between two models' places, 100 % when one puts first what another puts last."
      : "A bar runs from probability 0 to 1, by each model's own calibration; the number is the projection. Disagreement is the largest distance between two models' probabilities."),
  ];
}

/** A model's projection, with its place on the scale as a dot. */
function place(projected, scale) {
  if (!projected) return element("span", { class: "faint" }, "–");
  const at = projected[scale];
  const track = element("span", { class: "track", "aria-hidden": "true" });
  if (at !== null) {
    const dot = element("span", { class: `dot ${at < 0.5 ? "low" : "high"}` });
    dot.style.left = `${100 * at}%`;
    track.append(dot);
  }
  return element("span", { class: "place", title: at === null ? "" : `${scale} ${share(at)}` },
    element("span", {}, brief(projected.projection)), track);
}

const share = (value) => (value === null || value === undefined ? "" : `${(100 * value).toFixed(0)} %`);
