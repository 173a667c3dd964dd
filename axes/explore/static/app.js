// Which page is shown: the part of the address after #, such as #/prompts?prompt_set=demo_safety.

import { showAxis } from "./axis.js";
import { errorLine } from "./dom.js";
import { showPrompts } from "./prompts.js";
import { showSql } from "./sql.js";
import { showStart } from "./start.js";
import { showSteps } from "./steps.js";

const pages = { start: showStart, sql: showSql, axis: showAxis, prompts: showPrompts, steps: showSteps };
const titles = { start: "Start", sql: "SQL", axis: "Axes", prompts: "Prompts", steps: "Completions" };
const main = document.querySelector("main");
let leave = () => {};

function place() {
  const [, name = "start", query = ""] = location.hash.match(/^#\/(\w+)(?:\?(.*))?$/) ?? [];
  return { name: name in pages ? name : "start", given: Object.fromEntries(new URLSearchParams(query)) };
}

async function show() {
  leave();
  const { name, given } = place();
  document.title = `${titles[name]} · axes explore`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash.startsWith(`#/${name}`)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const left = new AbortController();
  leave = () => left.abort();
  main.replaceChildren();
  // A chart's tooltip is outside the page that it belongs to.
  document.getElementById("vg-tooltip-element")?.remove();
  // The link that led here is gone: the keyboard goes on from the page's beginning.
  if (document.activeElement === document.body) main.focus({ preventScroll: true });
  try {
    await pages[name](main, given, left.signal);
  } catch (error) {
    if (!left.signal.aborted) main.append(errorLine(error.message));
  }
}

window.addEventListener("hashchange", show);
show();
