// The page that opens first: studies with their verdicts, and what is stored.

import { literal, sqlLink } from "./address.js";
import { counted, element, note, plainTable } from "./dom.js";
import { get } from "./server.js";

export async function showStart(main, given, left) {
  const { studies, stored } = await get("start", {}, left);
  main.append(
    element("h2", {}, "Studies"),
    ...(studies.length ? studies.map(card) : [note("This warehouse has no study yet: axes study")]),
    element("h2", {}, "Stored"),
    plainTable("Stored", ["Table", "Rows"], stored.map(({ name, count }) =>
      [element("a", { href: sqlLink(`from ${name}\nlimit 100`) }, name), count])),
  );
}

function card({ study_id, label, prompts, align, models, started_at, axis_id, verdicts }) {
  const lines = verdicts.map(({ claim, prompt_set, verdict, cause }) =>
    [element("span", { class: `tag ${verdict.replace(" ", "-")}` }, verdict), claim, prompt_set, cause]);
  return element("section", { "aria-label": `Study ${label}` },
    element("h3", {}, `${label}: ${models}`),
    element("p", { class: "faint" }, `directions of ${prompts}, aligned on ${align}, run ${started_at}, ${counted(lines.length, "verdict")}`),
    element("p", { class: "links" },
      axis_id ? element("a", { href: `#/axis?${new URLSearchParams({ axis: axis_id })}` }, "Universal axis") : null,
      element("a", { href: sqlLink(`from v_study\nwhere study_id = ${literal(study_id)}`) }, "Results"),
      element("a", { href: sqlLink(`from v_study_warnings\nwhere study_id = ${literal(study_id)}`) }, "Warnings")),
    lines.length ? plainTable(`Verdicts of ${label}`, ["Verdict", "Claim", "Prompt set", "Cause, or what would decide it"], lines) : null);
}
