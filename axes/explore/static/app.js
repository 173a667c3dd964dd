// Which page is shown: the part of the address after #, such as #/prompts?prompt_set=demo_safety.

import { errorLine } from "./dom.js";
import { showPrompts } from "./prompts.js";
import { showSql } from "./sql.js";
import { showSteps } from "./steps.js";

const pages = { sql: showSql, prompts: showPrompts, steps: showSteps };
const titles = { sql: "SQL", prompts: "Prompts", steps: "Completions" };
const main = document.querySelector("main");
let leave = () => {};

function place() {
  const [, name = "sql", query = ""] = location.hash.match(/^#\/(\w+)(?:\?(.*))?$/) ?? [];
  return { name: name in pages ? name : "sql", given: Object.fromEntries(new URLSearchParams(query)) };
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
  try {
    await pages[name](main, given, left.signal);
  } catch (error) {
    if (!left.signal.aborted) main.append(errorLine(error.message));
  }
}

window.addEventListener("hashchange", show);
show();
