"use strict";
(() => {
  const parsed = (id) => JSON.parse(document.getElementById(id).textContent);
  const config = parsed("config");

  // Rows lie in columns; a column of text as its distinct values and their places.
  const rowsOf = (name) => {
    const columns = Object.entries(parsed("rows-" + name)).map(([column, held]) => [
      column,
      Array.isArray(held) ? held : held.places.map((place) => (place === null ? null : held.values[place])),
    ]);
    return columns[0][1].map((_, row) => Object.fromEntries(columns.map(([column, values]) => [column, values[row]])));
  };

  // As many panels beside each other as there is room for, and none wider than the page.
  const fitted = (spec, room) => {
    const panel = spec.spec;
    const { margin, gutter, isStretched } = spec.usermeta;
    const free = room - margin;
    spec.columns = Math.max(1, Math.min(spec.columns, Math.floor(free / (panel.width + gutter))));
    const most = Math.floor(free / spec.columns) - gutter;
    panel.width = Math.max(110, Math.min(most, isStretched ? 1.4 * panel.width : panel.width));
    if (room < 600) spec.facet.header.labelExpr = "split(replace(datum.label, ' on ', ' | on '), ' | ')";
    return spec;
  };

  const charts = [...document.querySelectorAll("[data-chart]")].map((place) => ({ place, name: place.dataset.chart }));
  const embed = async (chart, room) => {
    const spec = fitted(parsed("spec-" + chart.name), room);
    spec.datasets = { rows: rowsOf(chart.name) };
    const narrow = { legend: { ...config.legend, columns: room < 600 ? 1 : 4 } };
    if (chart.view) chart.view.finalize();
    chart.view = await vegaEmbed(chart.place, spec, {
      mode: "vega-lite",
      renderer: "svg",
      actions: false,
      ast: true,
      defaultStyle: false,
      tooltip: { disableDefaultStyle: true },
      config: { ...config, ...narrow },
    });
  };
  const draw = async () => {
    for (const chart of charts) {
      const room = chart.place.clientWidth;
      if (room === chart.room) continue;
      chart.room = room;
      // Labels may take more than the margin that the chart names.
      for (let over = 1, given = room, tries = 0; over > 0 && tries < 3; tries++, given -= Math.ceil(over)) {
        await embed(chart, given);
        over = chart.place.querySelector("svg").getBoundingClientRect().width - room;
      }
    }
    document.documentElement.dataset.drawn = "true";
  };
  let waiting;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(draw, 200);
  });

  const button = (text, action) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", () => action(made));
    return made;
  };

  const keyOf = (cell) => {
    const value = cell.dataset.value ?? cell.textContent;
    const number = Number(value);
    return value !== "" && Number.isFinite(number) ? number : value;
  };
  const compare = (one, other) => {
    if (typeof one === typeof other) return one < other ? -1 : Number(one > other);
    return typeof one === "number" ? -1 : 1;
  };
  const sortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const sort = () => {
        const isFalling = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", isFalling ? "descending" : "ascending");
        const keyed = [...table.tBodies[0].rows].map((row) => [keyOf(row.cells[column]), row]);
        // Empty cells stay last in either order.
        const isEmpty = ([key]) => key === "";
        const found = keyed.filter((pair) => !isEmpty(pair)).sort((one, other) => compare(one[0], other[0]));
        if (isFalling) found.reverse();
        table.tBodies[0].append(...[...found, ...keyed.filter(isEmpty)].map(([, row]) => row));
      };
      head.replaceChildren(button(head.textContent, sort));
    });
  };
  document.querySelectorAll("[data-table]").forEach(sortable);

  const quoted = (value) => {
    const text = value === null ? "" : String(value);
    return /[",\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  const save = (name, rows) => {
    const lines = [Object.keys(rows[0]), ...rows.map(Object.values)].map((line) => line.map(quoted).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    link.download = name + ".csv";
    link.click();
    URL.revokeObjectURL(link.href);
  };
  const SHOWN = 300;
  const tableOf = (rows) => {
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const column of Object.keys(rows[0])) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = column.replaceAll("_", " ");
      head.append(cell);
    }
    const body = table.createTBody();
    for (const row of rows.slice(0, SHOWN)) {
      const line = body.insertRow();
      for (const [column, value] of Object.entries(row)) {
        const cell = line.insertCell();
        cell.dataset.label = column.replaceAll("_", " ");
        const isNumber = typeof value === "number";
        cell.textContent = isNumber && !Number.isInteger(value) ? value.toPrecision(4) : (value ?? "");
        if (isNumber) cell.className = "number";
      }
    }
    sortable(table);
    return table;
  };
  document.querySelectorAll("[data-rows]").forEach((details) => {
    details.addEventListener(
      "toggle",
      () => {
        const rows = rowsOf(details.dataset.rows);
        const held = document.createElement("div");
        held.className = "scroll";
        held.append(tableOf(rows));
        details.append(button("Save as CSV", () => save(details.dataset.rows, rows)), held);
        if (rows.length > SHOWN) details.append(`The first ${SHOWN} of them; the file has all.`);
      },
      { once: true },
    );
  });

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Where a page from disk may not: by way of the selection.
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  document.querySelectorAll("details.sql").forEach((details) => {
    const copying = async (made) => {
      await copy(details.querySelector("code").textContent);
      made.textContent = "Copied";
      setTimeout(() => (made.textContent = "Copy"), 1500);
    };
    details.querySelector("summary").after(button("Copy", copying));
  });

  const root = document.documentElement;
  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const toggle = document.getElementById("theme");
  const name = () => (toggle.textContent = isDark() ? "Light colours" : "Dark colours");
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    name();
  });
  name();
  draw();
})();
