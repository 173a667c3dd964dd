// Shortcuts of every page, and the dialog that lists them.

import { element } from "./dom.js";

const TYPED = "input, textarea, select, [contenteditable]";
const isOff = () => localStorage.getItem("shortcuts") === "off";

/** Digits open the pages of `nav`, / goes to the first control, ? lists the shortcuts and can turn them off. */
export function shortcuts(nav, main, button) {
  const links = [...nav.querySelectorAll("a")];
  const lines = [
    ...links.map((link, index) => [`${index + 1}`, link.textContent]),
    ["/", "The page's first control"], ["?", "This list"], ["Ctrl Enter", "Run the statement"], ["Ctrl Space", "Complete the statement"],
    ["← → Home End", "Step through the tokens of a completion"], ["Escape", "Close a list"],
  ];
  const on = element("input", { type: "checkbox", onchange: () => localStorage.setItem("shortcuts", on.checked ? "on" : "off") });
  const dialog = element("dialog", { "aria-label": "Keyboard shortcuts" },
    element("h2", {}, "Keyboard shortcuts"),
    element("dl", { class: "keys" }, ...lines.flatMap(([key, text]) => [element("dt", {}, element("kbd", {}, key)), element("dd", {}, text)])),
    element("label", { class: "check" }, on, "Shortcuts of single keys"),
    element("form", { method: "dialog" }, element("button", { class: "primary" }, "Close")));
  const list = () => {
    on.checked = !isOff();
    dialog.showModal();
  };
  document.body.append(dialog);
  button.addEventListener("click", list);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.open || isOff() || event.target.closest(TYPED)) return;
    const first = main.querySelector(TYPED);
    const action = { "?": list, "/": first && (() => first.focus()) }[event.key] ?? (links[event.key - 1] && (() => links[event.key - 1].click()));
    if (!action) return;
    event.preventDefault();
    action();
  });
}
