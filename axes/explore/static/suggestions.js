// What may follow at the cursor of a textarea; the server knows the names.

import { element } from "./dom.js";
import { post } from "./server.js";

const WAIT = 60;

/** Completes in `area` while it is typed in: arrows choose, Tab or Enter takes, Escape closes. */
export function suggest(area) {
  const list = element("ul", {
    class: "suggestions", id: "suggestions", role: "listbox", "aria-label": "Completions", hidden: true,
  });
  for (const [name, value] of Object.entries({
    role: "combobox", "aria-controls": "suggestions", "aria-autocomplete": "list",
    "aria-expanded": "false", "aria-multiline": "true",
  })) area.setAttribute(name, value);
  let found = [];
  let chosen = 0;
  let timer = 0;
  let asking = new AbortController();

  const close = () => {
    clearTimeout(timer);
    asking.abort();
    found = [];
    list.hidden = true;
    area.setAttribute("aria-expanded", "false");
    area.removeAttribute("aria-activedescendant");
  };

  const draw = () => {
    list.replaceChildren(...found.map(({ text, meaning }, index) => {
      const line = element(
        "li", { id: `suggestion-${index}`, role: "option", "aria-selected": `${index === chosen}` },
        text, element("span", {}, meaning),
      );
      line.addEventListener("mousedown", (event) => {
        event.preventDefault();
        take(index);
      });
      return line;
    }));
    list.hidden = !found.length;
    area.setAttribute("aria-expanded", `${!list.hidden}`);
    if (list.hidden) return;
    area.setAttribute("aria-activedescendant", `suggestion-${chosen}`);
    list.children[chosen].scrollIntoView({ block: "nearest" });
    const { left, top } = caret(area);
    list.style.top = `${top}px`;
    list.style.left = `${Math.max(0, Math.min(left, area.clientWidth - list.offsetWidth))}px`;
  };

  const ask = async () => {
    const cursor = area.selectionStart;
    const before = area.value.slice(0, cursor);
    asking.abort();
    asking = new AbortController();
    try {
      const answer = await post("complete", { before, after: area.value.slice(cursor) }, asking.signal);
      const { completions } = await answer.json();
      // Nothing to choose where the only word is the one that stands there.
      found = completions.length === 1 && before.endsWith(completions[0].text) ? [] : completions;
      chosen = 0;
      draw();
    } catch (error) {
      if (error.name !== "AbortError") close();
    }
  };

  const take = (index) => {
    const { text, length } = found[index];
    const cursor = area.selectionStart;
    area.focus();
    area.setRangeText(text, cursor - length, cursor, "end");
    close();
  };

  area.addEventListener("input", () => {
    clearTimeout(timer);
    const before = area.value.slice(0, area.selectionStart);
    if (/[\w.]$|\b(?:from|join|describe|summarize)\s$/i.test(before)) timer = setTimeout(ask, WAIT);
    else close();
  });
  area.addEventListener("blur", close);
  area.addEventListener("click", close);
  area.addEventListener("keydown", (event) => {
    if (event.ctrlKey && event.key === " ") {
      event.preventDefault();
      ask();
      return;
    }
    // The statement runs: nothing is left to complete.
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) close();
    if (list.hidden) return;
    const moves = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in moves) {
      chosen = (chosen + moves[event.key] + found.length) % found.length;
      draw();
    } else if (event.key === "Tab" || event.key === "Enter") {
      take(chosen);
    } else if (event.key === "Escape") {
      close();
    } else {
      if (["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) close();
      return;
    }
    event.preventDefault();
  });
  return list;
}

/** Where below the cursor there is room, in pixels from the textarea's corner; lines do not wrap. */
function caret(area) {
  const style = getComputedStyle(area);
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = style.font;
  const lines = area.value.slice(0, area.selectionStart).split("\n");
  const width = pen.measureText(lines.at(-1)).width;
  return {
    left: parseFloat(style.paddingLeft) + width - area.scrollLeft,
    top: parseFloat(style.paddingTop) + lines.length * parseFloat(style.lineHeight) - area.scrollTop + 2,
  };
}
