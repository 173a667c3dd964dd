// The page of typed SQL: an editor, the answer as a table and as a chart.

import { remember } from "./address.js";
import { chartPanel } from "./chart.js";
import { brief, choice, element, errorLine, field } from "./dom.js";
import { textOf, uncoverAll } from "./hidden.js";
import { get, post } from "./server.js";
import { suggest } from "./suggestions.js";

const EXAMPLES = {
  "How well each axis separates the classes": `select model, prompt_set, kind, layer, auroc
from v_auroc
order by all`,
  "Projections by label": `select model, label, projection
from v_projections
where kind = 'universal'`,
  "Does the projection drift during generation?": `select model, step, is_positive, avg(running_mean) as running_mean
from v_generation_projections
where kind = 'universal' and step >= 0
group by all
order by all`,
  "Cosines between the models' axes": `select model, other_model, cosine
from v_axis_cosines
where kind = 'aligned' and other_kind = 'aligned'`,
  "Runs": `select command, status, rows, tokens_per_second, started_at
from runs
order by started_at desc
limit 20`,
};

export async function showSql(main, given, left) {
  const isFirst = sessionStorage.getItem("statement") === null;
  const area = element("textarea", {
    id: "statement", spellcheck: "false", autocapitalize: "off", autocomplete: "off",
    "aria-label": "SQL statement", placeholder: "select ... from v_study   (Ctrl+Enter runs, Tab completes)",
    value: given.sql ?? sessionStorage.getItem("statement") ?? EXAMPLES["How well each axis separates the classes"],
  });
  const run = element("button", { type: "button", class: "primary", onclick: () => ask() }, "Run");
  const stop = element("button", { type: "button", disabled: true, onclick: () => asking.abort() }, "Stop");
  const csv = element("button", { type: "button", onclick: () => save() }, "Save as CSV");
  const examples = choice(
    [["", "choose a question …"], ...Object.keys(EXAMPLES).map((name) => [name, name])], "",
    (name) => {
      if (!name) return;
      area.value = EXAMPLES[name];
      ask();
    },
  );
  const status = element("p", { class: "status", role: "status" });
  const answer = element("div", { id: "answer" });
  main.append(
    element("div", { class: "editor" }, area, suggest(area)),
    element("div", { class: "bar" }, run, stop, csv, element("span", { class: "space" }), field("Examples", examples)),
    status,
    answer,
    await names(area),
  );
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    ask();
  });
  let asking = new AbortController();
  left.addEventListener("abort", () => asking.abort());

  /** Answers of one statement at a time: a new one ends the last. */
  const asked = async (path, use) => {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    const started = performance.now();
    sessionStorage.setItem("statement", area.value);
    remember("sql", {});
    status.textContent = "running …";
    stop.disabled = false;
    try {
      const response = await post(path, { sql: area.value }, signal);
      await use(response, () => `${Math.round(performance.now() - started)} ms`);
    } catch (error) {
      if (signal.aborted && signal !== asking.signal) return;
      status.textContent = signal.aborted ? "stopped" : "";
      if (!signal.aborted) {
        answer.replaceChildren(errorLine(error.message, ...(error.detail ? [" ", textOf(error.detail)] : [])));
      }
    } finally {
      if (signal === asking.signal) stop.disabled = true;
    }
  };

  const ask = () =>
    asked("sql", async (response, taken) => {
      const found = await response.json();
      answer.replaceChildren(...answerParts(found));
      const cut = found.row_count > found.rows.length ? `, the first ${found.rows.length} shown` : "";
      status.textContent = `${found.row_count} ${found.row_count === 1 ? "row" : "rows"}${cut}, ${taken()}`;
    });

  const save = () =>
    asked("csv", async (response, taken) => {
      const address = URL.createObjectURL(await response.blob());
      element("a", { href: address, download: "answer.csv" }).click();
      URL.revokeObjectURL(address);
      status.textContent = `saved as answer.csv, ${taken()}`;
    });

  if (given.sql || isFirst) await ask();
}

function answerParts(found) {
  const table = element("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Rows" }, tableOf(found));
  const { panel, draw } = chartPanel(found);
  panel.hidden = true;
  const views = { Table: table, Chart: panel };
  const buttons = Object.keys(views).map((name) =>
    element("button", { type: "button", "aria-pressed": `${name === "Table"}`, onclick: () => see(name) }, name));
  const see = (name) => {
    for (const [other, view] of Object.entries(views)) view.hidden = other !== name;
    for (const button of buttons) button.setAttribute("aria-pressed", `${button.textContent === name}`);
    if (name === "Chart") draw();
  };
  const hidden = table.querySelector(".covered") ? [uncoverAll(table)] : [];
  const bar = element("div", { class: "bar", role: "group", "aria-label": "View" }, ...(found.rows.length ? buttons : []), ...hidden);
  return [bar, table, panel];
}

function tableOf({ columns, rows }) {
  const kinds = columns.map(({ kind }) => kind);
  const head = columns.map(({ name, kind }) => element("th", { scope: "col", class: kind }, name));
  const body = rows.map((row) =>
    element("tr", {}, ...row.map((value, index) => {
      if (value === null) return element("td", { class: `${kinds[index]} null` });
      if (kinds[index] === "number") return element("td", { class: "number", title: `${value}` }, brief(value));
      if (kinds[index] === "boolean") return element("td", {}, `${value}`);
      return element("td", { class: kinds[index] }, textOf(value));
    })));
  return element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
}

/** Every table, view and macro; a click puts its name into the statement. */
async function names(area) {
  const { tables, macros } = await get("catalog");
  const put = (text) => {
    area.focus();
    area.setRangeText(text, area.selectionStart, area.selectionEnd, "end");
  };
  const line = (name, text, meaning) =>
    element("li", {},
      element("button", { type: "button", class: "link", onclick: () => put(text) }, name),
      meaning ? element("span", { class: "faint" }, ` ${meaning}`) : null);
  return element(
    "details", {},
    element("summary", {}, `${tables.length} tables and views, ${macros.length} macros`),
    element("ul", { class: "names" },
      ...tables.map(({ name, comment }) => line(name, name, comment)),
      ...macros.map((name) => line(`${name}()`, `${name}(`, "macro"))),
  );
}
