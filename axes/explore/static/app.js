// Which page is shown: the part of the address after #, such as #/prompts?prompt_set=demo_safety.

import { showAxis } from "./axis.js";
import { showDifferences } from "./differences.js";
import { errorLine } from "./dom.js";
import { shortcuts } from "./keys.js";
import { showLayers } from "./layers.js";
import { showPrompts } from "./prompts.js";
import { showScatter } from "./scatter.js";
import { showSql } from "./sql.js";
import { showStart } from "./start.js";
import { showSteps } from "./steps.js";

const pages = {
  start: showStart, sql: showSql, axis: showAxis, prompts: showPrompts, scatter: showScatter, layers: showLayers,
  steps: showSteps, differences: showDifferences,
};
const main = document.querySelector("main");
let leave = () => {};

function place() {
  const [, name = "start", query = ""] = location.hash.match(/^#\/(\w+)(?:\?(.*))?$/) ?? [];
  return { name: name in pages ? name : "start", given: Object.fromEntries(new URLSearchParams(query)) };
}

async function show() {
  leave();
  const { name, given } = place();
  for (const link of document.querySelectorAll("nav a")) {
    const isHere = link.hash === `#/${name}`;
    if (isHere) document.title = `${link.textContent} · axes explore`;
    link.ariaCurrent = isHere ? "page" : null;
  }
  const left = new AbortController();
  leave = () => left.abort();
  const choosing = main.contains(document.activeElement) && document.activeElement.closest("label")?.firstChild.textContent;
  main.replaceChildren();
  // A chart's tooltip is outside the page that it belongs to.
  document.getElementById("vg-tooltip-element")?.remove();
  // The link that led here is gone: the keyboard goes on from the page's beginning.
  if (document.activeElement === document.body) main.focus({ preventScroll: true });
  try {
    await pages[name](main, given, left.signal);
    // A choice that led to this page goes on with the keyboard.
    const isAgain = (label) => label.firstChild.textContent === choosing;
    if (choosing && document.activeElement === main) [...main.querySelectorAll("label")].find(isAgain)?.control?.focus();
  } catch (error) {
    if (!left.signal.aborted) main.append(errorLine(error.message));
  }
}

window.addEventListener("hashchange", show);
shortcuts(document.querySelector("nav"), main, document.getElementById("keys"));
show();
