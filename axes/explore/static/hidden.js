// Texts of the positive class: the page holds a number, the text is fetched on a click.

import { element } from "./dom.js";
import { get } from "./server.js";

/** A text as it came: shown, or a button that fetches it. */
export function textOf(value) {
  if (value === null || value === undefined) return element("span", { class: "faint" }, "");
  return typeof value === "object" ? covered(value.hidden) : element("span", {}, value);
}

export const isHidden = (value) => typeof value === "object" && value !== null && "hidden" in value;

function covered(number) {
  const button = element(
    "button",
    { type: "button", class: "covered", "data-number": number, "aria-label": "Show hidden text" },
    "hidden: click to show",
  );
  button.addEventListener("click", async () => {
    const hadFocus = document.activeElement === button;
    try {
      const { text } = await get("text", { number });
      const shown = uncovered(text, number);
      button.replaceWith(shown);
      if (hadFocus) shown.querySelector("button").focus();
    } catch (error) {
      button.textContent = error.message;
    }
  });
  return button;
}

function uncovered(text, number) {
  const shown = element("span", {}, element("span", { class: "uncovered" }, text), " ");
  const hide = element("button", { type: "button", class: "link", "aria-label": "Hide this text again" }, "hide");
  hide.addEventListener("click", () => {
    const button = covered(number);
    shown.replaceWith(button);
    button.focus();
  });
  shown.append(hide);
  return shown;
}

/** A button that uncovers every text in a part of the page. */
export function uncoverAll(part) {
  const press = () => part.querySelectorAll(".covered").forEach((button) => button.click());
  return element("button", { type: "button", onclick: press }, "Show hidden texts");
}
