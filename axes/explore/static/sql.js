// The page of typed SQL: an editor, the answer as a table and as a chart.

import { remember } from "./address.js";
import { chartPanel } from "./chart.js";
import { brief, choice, counted, element, errorLine, field } from "./dom.js";
import { textOf, uncoverAll } from "./hidden.js";
import { get, post } from "./server.js";
import { suggest } from "./suggestions.js";

const EXAMPLES = {
  "How well each axis separates the classes": `select model, prompt_set, kind, layer, auroc
from v_auroc
where study_id is null or study_id = latest_study()
order by all`,
  "Projections by label": `select model, label, projection
from v_projections
where study_id = latest_study() and kind = 'universal'`,
  "Does the projection drift during generation?": `select model, step, is_positive, avg(running_mean) as running_mean
from v_generation_projections
where study_id = latest_study() and kind = 'universal' and step >= 0
group by all
order by all`,
  "Cosines between the models' axes": `select model, other_model, cosine
from v_axis_cosines
where study_id = latest_study() and kind = 'aligned' and other_kind = 'aligned'`,
  "Runs": `select command, status, rows, tokens_per_second, started_at
from runs
order by started_at desc
limit 20`,
};

// Statements of this tab, the newest first.
const HISTORY = 50;
const statements = () => JSON.parse(sessionStorage.getItem("statements") ?? "[]");

export async function showSql(main, given, left) {
  // What a link says and the address keeps: Table or Chart, and what the chart shows.
  const seen = { view: given.view, chart: given.chart };
  const keep = (changes) => remember("sql", { sql: statements()[0], ...Object.assign(seen, changes) });
  const isFirst = !statements().length;
  const area = element("textarea", {
    id: "statement", spellcheck: "false", autocapitalize: "off", autocomplete: "off",
    "aria-label": "SQL statement", placeholder: "select ... from v_study   (Ctrl+Enter runs, Tab completes)",
    value: given.sql ?? statements()[0] ?? EXAMPLES["How well each axis separates the classes"],
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
  const history = element("span", {});
  const drawHistory = () => history.replaceChildren(field("History", choice(
    [["", "run before …"], ...statements().map((sql, index) => [`${index}`, sql.replace(/\s+/g, " ").slice(0, 90)])], "",
    (index) => {
      if (!index) return;
      area.value = statements()[index];
      ask();
    },
  )));
  drawHistory();
  const status = element("p", { class: "status", role: "status" });
  const answer = element("div", { id: "answer" });
  main.append(
    element("div", { class: "editor" }, area, suggest(area)),
    element("div", { class: "bar" }, run, stop, csv, element("span", { class: "space" }), history, field("Examples", examples)),
    status,
    answer,
    await names(area),
  );
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    ask();
  });
  let shown = given.sql;
  let asking = new AbortController();
  left.addEventListener("abort", () => asking.abort());

  /** Answers of one statement at a time: a new one ends the last. */
  const asked = async (path, use) => {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    const started = performance.now();
    // The choices of a chart are about the columns of its statement.
    if (shown !== area.value) seen.chart = undefined;
    shown = area.value;
    const earlier = statements().filter((one) => one !== area.value);
    sessionStorage.setItem("statements", JSON.stringify([area.value, ...earlier].slice(0, HISTORY)));
    drawHistory();
    keep({});
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
      const sql = statements()[0];
      answer.replaceChildren(...answerParts(found, seen, keep, async () => (await post("chart", { sql }, left)).json()));
      const cut = found.row_count > found.rows.length ? `, the first ${found.rows.length} shown` : "";
      const blank = !found.row_count && seen.view === "Chart" ? ", nothing to draw" : "";
      status.textContent = `${counted(found.row_count, "row")}${cut}${blank}, ${taken()}`;
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

/** The answer as a table and, once asked for, as a chart of all rows, which `allRows` fetches. */
function answerParts(found, seen, keep, allRows) {
  const table = element("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Rows" }, tableOf(found));
  const panel = element("div", { hidden: true });
  const { chart } = seen;
  const draw = async () => {
    panel.replaceChildren(element("p", { class: "status" }, "drawing …"));
    try {
      const all = found.row_count > found.rows.length ? await allRows() : found;
      panel.replaceChildren();
      panel.append(chartPanel(all, chart, (text) => keep({ chart: text })));
    } catch (error) {
      panel.replaceChildren(errorLine(`The chart could not be drawn: ${error.message}`));
    }
  };
  const views = { Table: table, Chart: panel };
  const buttons = Object.keys(views).map((name) =>
    element("button", { type: "button", "aria-pressed": `${name === "Table"}`, onclick: () => see(name) }, name));
  const see = (name) => {
    for (const [other, view] of Object.entries(views)) view.hidden = other !== name;
    for (const button of buttons) button.setAttribute("aria-pressed", `${button.textContent === name}`);
    keep({ view: name === "Chart" ? name : undefined });
    if (name === "Chart" && !panel.hasChildNodes()) draw();
  };
  const hidden = table.querySelector(".covered") ? [uncoverAll(table)] : [];
  const bar = element("div", { class: "bar", role: "group", "aria-label": "View" }, ...(found.rows.length ? buttons : []), ...hidden);
  // Once the page has the panel, whose width the chart takes.
  if (seen.view === "Chart" && found.rows.length) queueMicrotask(() => see("Chart"));
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

/** Every table, view and macro; a click puts its name into the statement, with spaces around it. */
async function names(area) {
  const { tables, macros } = await get("catalog");
  const put = (text, lead) => {
    area.focus();
    const [before, after] = [area.value.slice(0, area.selectionStart), area.value.slice(area.selectionEnd)];
    const start = before.trim() || after.trim() ? (/[^\s(,.]$/.test(before) ? " " : "") : lead;
    area.setRangeText(`${start}${text}${/^\w/.test(after) ? " " : ""}`, area.selectionStart, area.selectionEnd, "end");
  };
  const line = (name, text, meaning, lead) =>
    element("li", {},
      element("button", { type: "button", class: "link", onclick: () => put(text, lead) }, name),
      meaning ? element("span", { class: "faint" }, ` ${meaning}`) : null);
  return element(
    "details", {},
    element("summary", {}, `${tables.length} tables and views, ${macros.length} macros`),
    element("ul", { class: "names" },
      ...tables.map(({ name, comment }) => line(name, name, comment, "from ")),
      ...macros.map((name) => line(`${name}()`, `${name}(`, "macro", "select "))),
  );
}
