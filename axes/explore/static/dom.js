// Elements without HTML strings: whatever a warehouse holds is text, never markup.

/** `element("td", { class: "text", onclick: f, "data-label": "x" }, child, ...)` */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "value") made.value = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** A labelled control. */
export function field(label, control, className = "") {
  return element("label", { class: `field ${className}` }, label, control);
}

/** A select; `options` are [value, text] pairs. */
export function choice(options, chosen, onchange) {
  const made = element("select", { onchange: () => onchange(made.value) });
  for (const [value, text] of options) made.append(element("option", { value }, text));
  made.value = chosen;
  if (made.selectedIndex < 0) made.selectedIndex = 0;
  return made;
}

export function errorLine(message, ...more) {
  return element("p", { class: "error", role: "alert" }, message, ...more);
}

export const note = (...texts) => element("p", { class: "note" }, ...texts);

/** A number in few characters. */
export function brief(number) {
  if (typeof number !== "number") return number === null || number === undefined ? "" : `${number}`;
  if (Number.isInteger(number)) return `${number}`;
  const size = Math.abs(number);
  return size >= 1e5 || size < 1e-3 ? number.toExponential(2) : number.toPrecision(4);
}

/** A table of rows of texts, numbers and elements. */
export function plainTable(label, heads, lines) {
  const cell = (value, index) => element("td", { class: typeof value === "number" ? "number" : "", "data-label": heads[index] }, typeof value === "object" ? value : brief(value));
  return element("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": label },
    element("table", { class: "fit cards", "aria-label": label },
      element("thead", {}, element("tr", {}, ...heads.map((head, index) =>
        element("th", { scope: "col", class: lines.some((line) => typeof line[index] === "number") ? "number" : "" }, head)))),
      element("tbody", {}, ...lines.map((line) => element("tr", {}, ...line.map(cell))))));
}

/** "1 row", "2 rows" */
export const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** The previous and next page; `go` is called with the page's number. */
export function pager(found, noun, go) {
  const pages = Math.max(1, Math.ceil(found.total / found.page_rows));
  const step = (text, to) =>
    element("button", { type: "button", disabled: to < 0 || to >= pages, onclick: () => go(to) }, text);
  return element(
    "div",
    { class: "pager" },
    step("Previous", found.page - 1),
    element("span", {}, `page ${found.page + 1} of ${pages}, ${counted(found.total, noun)}`),
    step("Next", found.page + 1),
  );
}
