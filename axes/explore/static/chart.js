// A queried table as a chart: what is drawn by default, and Vega-Lite to draw it.

import { choice, element, errorLine, field, note } from "./dom.js";
import { isHidden } from "./hidden.js";

const MARKS = ["point", "line", "bar", "tick", "area", "boxplot", "rect"];
const SERIES = ["step", "layer", "position", "component", "new_tokens", "token_count"];

/** Axes and mark that suit the columns; columns by index, -1 for none. `shape` is a line's dashes, `panel` a chart for each value. */
export function defaultChart(columns, rows) {
  const of = (kind) => columns.flatMap((column, index) => (column.kind === kind ? [index] : []));
  const [numbers, times] = [of("number"), of("time")];
  const groups = [...of("text"), ...of("boolean")].filter((index) => {
    const values = new Set(rows.map((row) => JSON.stringify(row[index])));
    return values.size > 1 && values.size <= 30;
  });
  const [colour = -1, shape = -1, panel = -1] = groups.filter((index) => new Set(rows.map((row) => row[index])).size <= 10);
  const along = times[0] ?? numbers.find((index) => SERIES.includes(columns[index].name));
  const measured = numbers.filter((index) => index !== along);
  const none = { colour: -1, shape: -1, panel: -1 };
  if (!numbers.length) return { ...none, x: groups[0] ?? 0, y: -1, mark: "bar" };
  if (isMatrix(rows, groups, numbers)) return { ...none, x: groups[1], y: groups[0], colour: numbers[0], mark: "rect" };
  if (along !== undefined && measured.length) return { x: along, y: measured.at(-1), colour, shape, panel, mark: "line" };
  if (groups.length && rows.length <= 60) {
    const second = groups.find((index) => index !== groups[0]) ?? -1;
    return { ...none, x: groups[0], y: numbers.at(-1), colour: second, mark: groups.length > 2 ? "point" : "bar" };
  }
  if (numbers.length > 1) return { ...none, x: numbers[0], y: numbers[1], colour, mark: "point" };
  // A histogram of each thing, its classes in colours.
  return { ...none, x: numbers[0], y: -1, mark: "bar", ...(shape === -1 ? { colour } : { colour: shape, panel: colour }) };
}

/** Whether a row is a number for a pair of the same things, each pair once. */
function isMatrix(rows, groups, numbers) {
  if (groups.length !== 2 || numbers.length !== 1) return false;
  const [some, others] = groups.map((index) => new Set(rows.map((row) => row[index])));
  const pairs = new Set(rows.map((row) => JSON.stringify(groups.map((index) => row[index]))));
  return pairs.size === rows.length && [...some].some((value) => others.has(value));
}

const KEYS = ["x", "y", "colour", "shape", "panel", "mark"];

/** The choices of a link (`KEYS`, with commas between), or what suits the columns. */
function choicesOf(text, columns, rows) {
  const parts = (text ?? "").split(",");
  const isColumn = (part, index) => /^-?\d+$/.test(part) && part < columns.length && part >= (index ? -1 : 0);
  const isKnown = parts.length === KEYS.length && MARKS.includes(parts.at(-1)) && parts.slice(0, -1).every(isColumn);
  if (!isKnown) return defaultChart(columns, rows);
  return Object.fromEntries(KEYS.map((key, index) => [key, key === "mark" ? parts[index] : Number(parts[index])]));
}

/** Controls and the chart of an answer; redrawn at every choice, which `keep` gets as a text. */
export function chartPanel({ columns, rows, row_count }, text, keep) {
  const chosen = choicesOf(text, columns, rows);
  const named = columns.map((column, index) => [`${index}`, column.name]);
  const place = element("div", { class: "chart scroll", role: "img", "aria-label": "Chart of the result" });
  const draw = () => drawn(place, columns, rows, chosen);
  const pick = (key, options) =>
    choice(options, `${chosen[key]}`, (value) => {
      chosen[key] = key === "mark" ? value : Number(value);
      keep(KEYS.map((name) => chosen[name]).join(","));
      draw();
    });
  const controls = element(
    "div", { class: "bar" },
    field("x", pick("x", named)),
    field("y", pick("y", [["-1", "count of rows"], ...named])),
    field("Colour", pick("colour", [["-1", "none"], ...named])),
    field("Shape", pick("shape", [["-1", "none"], ...named])),
    field("Panels", pick("panel", [["-1", "none"], ...named])),
    field("Mark", pick("mark", MARKS.map((mark) => [mark, mark]))),
  );
  const share = row_count > rows.length ? `the first ${rows.length} of ${row_count}` : `all ${row_count}`;
  draw();
  return element("div", {}, controls, place, note(`The chart has ${share} rows.`));
}

let view;

/** Draw rows into a place; `more` is joined to the specification, whose fields are `c0`, `c1`, ... The view, or undefined. */
export async function drawn(place, columns, rows, chosen, more = {}) {
  try {
    const embed = await library();
    const values = rows.map((row) =>
      Object.fromEntries(row.map((value, index) => [`c${index}`, isHidden(value) ? "(hidden)" : value])));
    view?.finalize();
    document.getElementById("vg-tooltip-element")?.remove();
    const spec = specification(columns, values, chosen, place.clientWidth);
    view = await embed(place, { ...spec, ...more, encoding: { ...spec.encoding, ...more.encoding } }, {
      actions: false,
      // The page's policy allows no code made of text: Vega interprets its expressions instead.
      ast: true,
      defaultStyle: false,
      tooltip: { disableDefaultStyle: true },
      renderer: "canvas",
    });
    return view.view;
  } catch (error) {
    place.replaceChildren(errorLine(`The chart could not be drawn: ${error.message}`));
  }
}

function specification(columns, values, { x, y, colour, shape, panel, mark }, width) {
  const style = getComputedStyle(document.documentElement);
  const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
  const channel = (index, isAlong) => {
    const { name, kind } = columns[index];
    const isContinuous = kind === "number" || kind === "time";
    const type = { time: "temporal", number: "quantitative", ordinal: "ordinal" }[kind] ?? "nominal";
    const isBinned = isAlong && kind === "number" && (y === -1 || mark === "rect");
    return {
      field: `c${index}`, type, title: name, ...(isBinned && { bin: { maxbins: 40 } }),
      ...(isContinuous && !["bar", "area"].includes(mark) && { scale: { zero: false, nice: !isAlong } }),
      ...(!isContinuous && { sort: null }),
      ...(kind === "number" && values.every((row) => Number.isInteger(row[`c${index}`] ?? 0)) && { axis: { tickMinStep: 1, format: "d" } }),
      ...(kind === "ordinal" && { axis: { labelAngle: 0 } }),
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
      scale: continuous
        ? { scheme: "viridis", ...(columns[colour].name === "cosine" && { domain: [-1, 1] }) } : { range: COLOURS },
    };
    delete encoding.color.axis;
    const isGrouped = mark === "bar" && y !== -1 && columns[x].kind !== "number";
    if (isGrouped) encoding.xOffset = { field: `c${colour}` };
  }
  if (shape !== -1) {
    const name = { line: "strokeDash", point: "shape" }[mark] ?? "detail";
    encoding[name] = {
      field: `c${shape}`, type: "nominal", title: columns[shape].name, sort: null,
    };
  }
  if (panel !== -1) {
    encoding.facet = { field: `c${panel}`, type: "nominal", title: columns[panel].name, columns: width < 600 ? 1 : 3 };
  }
  const isSplit = panel !== -1 && width >= 600;
  return {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    data: { values },
    mark: { type: mark, tooltip: true, ...(mark === "line" && { point: true }), ...(mark === "point" && { filled: true, opacity: 0.75 }) },
    encoding,
    width: isSplit ? Math.max(120, (width - 200) / 3 - 20) : Math.max(240, width - (panel === -1 ? 24 : 90)),
    height: panel === -1 ? 300 : 200,
    ...(panel === -1 && { autosize: { type: "fit", contains: "padding" } }),
    config: {
      background: "transparent",
      view: { stroke: null },
      axis: { labelColor: ink, titleColor: ink, gridColor: line, domainColor: line, tickColor: line, labelLimit: 140 },
      legend: { labelColor: ink, titleColor: ink, labelLimit: 140, symbolBaseFillColor: ink, symbolBaseStrokeColor: ink, ...((panel !== -1 || width < 600) && { orient: "top" }) },
      header: { labelColor: ink, titleColor: ink },
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
