// A queried table as a chart: what is drawn by default, and Vega-Lite to draw it.

import { choice, element, errorLine, field } from "./dom.js";
import { isHidden } from "./hidden.js";

const MARKS = ["point", "line", "bar", "tick", "area", "boxplot", "rect"];
const SERIES = ["step", "layer", "position", "component", "new_tokens", "token_count"];

/** Axes and mark that suit the columns; columns by index, -1 for none. `shape` is a line's dashes. */
export function defaultChart(columns, rows) {
  const of = (kind) => columns.flatMap((column, index) => (column.kind === kind ? [index] : []));
  const [numbers, times] = [of("number"), of("time")];
  const groups = [...of("text"), ...of("boolean")].filter((index) => {
    const values = new Set(rows.map((row) => JSON.stringify(row[index])));
    return values.size > 1 && values.size <= 30;
  });
  const [colour = -1, shape = -1] = groups.filter((index) => new Set(rows.map((row) => row[index])).size <= 10);
  const along = times[0] ?? numbers.find((index) => SERIES.includes(columns[index].name));
  const measured = numbers.filter((index) => index !== along);
  if (!numbers.length) return { x: groups[0] ?? 0, y: -1, colour: -1, shape: -1, mark: "bar" };
  if (along !== undefined && measured.length) return { x: along, y: measured.at(-1), colour, shape, mark: "line" };
  if (groups.length && rows.length <= 60) {
    const second = groups.find((index) => index !== groups[0]) ?? -1;
    return { x: groups[0], y: numbers.at(-1), colour: second, shape: -1, mark: groups.length > 2 ? "point" : "bar" };
  }
  if (numbers.length > 1) return { x: numbers[0], y: numbers[1], colour, shape: -1, mark: "point" };
  return { x: numbers[0], y: -1, colour, shape: -1, mark: "bar" };
}

/** Controls and the chart of an answer; redrawn at every choice. */
export function chartPanel({ columns, rows }) {
  const chosen = defaultChart(columns, rows);
  const named = columns.map((column, index) => [`${index}`, column.name]);
  const place = element("div", { class: "chart scroll", role: "img", "aria-label": "Chart of the result" });
  const draw = () => drawn(place, columns, rows, chosen);
  const pick = (key, options) =>
    choice(options, `${chosen[key]}`, (value) => {
      chosen[key] = key === "mark" ? value : Number(value);
      draw();
    });
  const controls = element(
    "div", { class: "bar" },
    field("x", pick("x", named)),
    field("y", pick("y", [["-1", "count of rows"], ...named])),
    field("Colour", pick("colour", [["-1", "none"], ...named])),
    field("Shape", pick("shape", [["-1", "none"], ...named])),
    field("Mark", pick("mark", MARKS.map((mark) => [mark, mark]))),
  );
  return { panel: element("div", {}, controls, place), draw };
}

async function drawn(place, columns, rows, chosen) {
  try {
    const embed = await library();
    const values = rows.map((row) =>
      Object.fromEntries(row.map((value, index) => [`c${index}`, isHidden(value) ? "(hidden)" : value])));
    const { vgSpec } = await embed(place, specification(columns, values, chosen, place.clientWidth), {
      actions: false,
      // The page's policy allows no code made of text: Vega interprets its expressions instead.
      ast: true,
      defaultStyle: false,
      tooltip: { disableDefaultStyle: true },
      renderer: "canvas",
    });
    place.dataset.marks = vgSpec.marks.length;
  } catch (error) {
    place.replaceChildren(errorLine(error.message));
  }
}

function specification(columns, values, { x, y, colour, shape, mark }, width) {
  const style = getComputedStyle(document.documentElement);
  const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
  const channel = (index, isAlong) => {
    const { name, kind } = columns[index];
    const isContinuous = kind === "number" || kind === "time";
    const type = kind === "time" ? "temporal" : kind === "number" ? "quantitative" : "nominal";
    const isBinned = isAlong && kind === "number" && (y === -1 || mark === "rect");
    return {
      field: `c${index}`, type, title: name, ...(isBinned && { bin: { maxbins: 40 } }),
      ...(isContinuous && !["bar", "area"].includes(mark) && { scale: { zero: false, nice: !isAlong } }),
      ...(!isContinuous && { sort: null }),
      ...(kind === "number" && values.every((row) => Number.isInteger(row[`c${index}`] ?? 0)) && { axis: { tickMinStep: 1, format: "d" } }),
    };
  };
  const encoding = {
    x: channel(x, true),
    y: y === -1 ? { aggregate: "count", title: "rows" } : channel(y, false),
  };
  if (colour !== -1) {
    const continuous = columns[colour].kind === "number";
    encoding.color = {
      ...channel(colour, false),
      scale: continuous ? { scheme: "viridis" } : { range: COLOURS },
    };
    delete encoding.color.axis;
    const isGrouped = mark === "bar" && y !== -1 && columns[x].kind !== "number";
    if (isGrouped) encoding.xOffset = { field: `c${colour}` };
  }
  if (shape !== -1) {
    const name = { line: "strokeDash", point: "shape" }[mark] ?? "detail";
    encoding[name] = {
      field: `c${shape}`, type: "nominal", title: columns[shape].name,
    };
  }
  return {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    data: { values },
    mark: { type: mark, tooltip: true, ...(mark === "line" && shape === -1 && { point: true }), ...(mark === "point" && { filled: true, opacity: 0.75 }) },
    encoding,
    width: Math.max(240, width - 24),
    height: 300,
    autosize: { type: "fit", contains: "padding" },
    config: {
      background: "transparent",
      view: { stroke: null },
      axis: { labelColor: ink, titleColor: ink, gridColor: line, domainColor: line, tickColor: line, labelLimit: 140 },
      legend: { labelColor: ink, titleColor: ink, labelLimit: 140, symbolBaseFillColor: ink, symbolBaseStrokeColor: ink },
      mark: { color: COLOURS[0] },
      font: "system-ui, sans-serif",
    },
  };
}

// Okabe and Ito's colours, told apart with any common colour blindness; those seen on both grounds.
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#b8a800"];

let loading;

/** Vega, fetched with the first chart. */
function library() {
  loading ??= new Promise((resolve, reject) => {
    const script = element("script", { src: "vega.js" });
    script.onload = () => resolve(window.vegaEmbed);
    script.onerror = () => reject(new Error("the chart library could not be loaded"));
    document.head.append(script);
  });
  return loading;
}
