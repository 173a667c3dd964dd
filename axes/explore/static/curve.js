// The projection by step and its running mean, with the step that is looked at; and a histogram.

const [HEIGHT, EDGE, FOOT] = [170, 46, 22];

export function shape(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** `{ svg, point }`: the chart, and a function that marks the step at an index of `steps`; `width` is the place's. */
export function curve(steps, centre, pick, width) {
  const shown = steps.filter(({ projection }) => projection !== null);
  const values = shown.flatMap(({ projection, running_mean }) => [projection, running_mean]);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [first, last] = [shown[0].step, shown.at(-1).step];
  const x = (step) => EDGE + ((width - EDGE - 12) * (step - first)) / Math.max(1, last - first);
  const y = (value) => 10 + ((HEIGHT - FOOT - 18) * (high - value)) / (high - low || 1);
  const svg = shape("svg", {
    viewBox: `0 0 ${width} ${HEIGHT}`, class: "curve", role: "img",
    "aria-label": `Projection by step, from ${low.toPrecision(4)} to ${high.toPrecision(4)}`,
  });
  svg.append(shape("text", { x: 4, y: y(high) + 4 }, high.toPrecision(3)), shape("text", { x: 4, y: y(low) + 4 }, low.toPrecision(3)));
  svg.append(shape("text", { x: x(first), y: HEIGHT - 6 }, `step ${first}`));
  svg.append(shape("text", { x: x(last), y: HEIGHT - 6, "text-anchor": "end" }, `${last}`));
  if (centre >= low && centre <= high) {
    svg.append(shape("line", { class: "centre", x1: EDGE, x2: width - 12, y1: y(centre), y2: y(centre) }));
  }
  for (const part of [shown.filter(({ step }) => step < 0), shown.filter(({ step }) => step >= 0)]) {
    svg.append(shape("polyline", { class: "mean", points: part.map((one) => `${x(one.step)},${y(one.running_mean)}`).join(" ") }));
  }
  for (const { step, projection } of shown) {
    svg.append(shape("circle", { class: projection < centre ? "low" : "high", cx: x(step), cy: y(projection), r: 3.5 }));
  }
  const here = shape("line", { class: "here", y1: 4, y2: HEIGHT - FOOT });
  svg.append(here);
  svg.addEventListener("click", (event) => {
    const corner = svg.getBoundingClientRect();
    const at = ((event.clientX - corner.left) / corner.width) * width;
    const away = steps.map(({ step }) => Math.abs(x(step) - at));
    pick(away.indexOf(Math.min(...away)));
  });
  const point = (index) => {
    for (const end of ["x1", "x2"]) here.setAttribute(end, x(steps[index].step));
  };
  return { svg, point };
}

/** Counts of prompts by projection: `bins` are `{ label, bin, count, low, high }` of 30 bins. */
export function histogram(bins, labels, width) {
  const [{ low, high }] = bins;
  const most = Math.max(...bins.map(({ count }) => count));
  const [left, foot] = [30, HEIGHT - FOOT];
  const step = (width - left - 12) / 30;
  const svg = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, class: "curve", role: "img",
    "aria-label": `Prompts by projection from ${low.toPrecision(4)} to ${high.toPrecision(4)}, at most ${most} in a bin` });
  for (const { label, bin, count } of bins) {
    const height = ((foot - 12) * count) / most;
    const bar = shape("rect", { class: `bar-${labels.indexOf(label) % 4}`, x: left + bin * step, y: foot - height, width: step - 1, height });
    bar.append(shape("title", {}, `${label}: ${count}`));
    svg.append(bar);
  }
  svg.append(shape("text", { x: 4, y: 18 }, `${most}`), shape("text", { x: left, y: HEIGHT - 6 }, low.toPrecision(3)));
  svg.append(shape("text", { x: width - 12, y: HEIGHT - 6, "text-anchor": "end" }, high.toPrecision(3)));
  return svg;
}
