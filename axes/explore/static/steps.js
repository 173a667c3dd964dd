// The page of completions: a list, and one of them token by token, coloured by projection, next to another of its prompt.

import { remember, rememberSoon } from "./address.js";
import { curve } from "./curve.js";
import { brief, choice, counted, element, errorLine, field, note, pager } from "./dom.js";
import { isHidden, textOf } from "./hidden.js";
import { get } from "./server.js";

// So many standard deviations from the mean have the full colour.
const REACH = 2.5;

export async function showSteps(main, given, left) {
  const { other, ...asked } = given;
  // The completion next to it, of the same prompt, and what moves either to a step.
  const peer = { generation: other };
  const sees = new Map();
  const [{ sets }, first] = await Promise.all([get("choices", {}, left), get("completions", asked, left)]);
  if (!first.models.length) return main.append(note("This warehouse has no completions yet: axes ingest traces MODEL --prompts SET"));
  const list = element("div", {});
  const shown = element("section", { "aria-label": "Completion" });
  const compared = element("section", { "aria-label": "Completion compared with", hidden: true });
  const controls = element("div", { class: "bar" });
  main.append(controls, element("div", { class: "split" }, list, element("div", { class: "compared" }, shown, compared)));
  const set = (changes) => {
    Object.assign(asked, { page: 0, generation: undefined }, changes);
    return load();
  };
  const labels = [...new Set(sets.flatMap((one) => one.labels ?? []))];
  const drawControls = () => controls.replaceChildren(
    field("Model", choice([["", "all"], ...first.models.map((name) => [name, name])], asked.model ?? "", (model) => set({ model }))),
    field("Prompt set", choice([["", "all"], ...sets.map(({ name }) => [name, name])], asked.prompt_set ?? "", (value) => set({ prompt_set: value }))),
    field("Label", choice([["", "any"], ...labels.map((label) => [label, label])], asked.label ?? "", (label) => set({ label }))),
    ...(asked.prompt_id ? [element("button", { type: "button", onclick: () => {
      set({ prompt_id: "" });
      drawControls();
    } }, "All prompts")] : []),
  );

  const keep = (by = remember) => by("steps", { ...asked, is_revealed: undefined, other: peer.generation });
  const steppedTo = (other) => (step) => {
    asked.step = step;
    sees.get(other)?.(step);
    keep(rememberSoon);
  };
  // Of another prompt, the completion of the same model.
  const peerOf = (others) => others.find((one) => one.generation_id === peer.generation) ?? others.find(({ model }) => model === peer.model);
  const openPeer = async (first, changes = {}) => {
    Object.assign(peer, changes);
    const other = peerOf(first.others);
    const { axis, layer, places } = first;
    const { kind } = places.find(({ axis_id }) => axis_id === axis) ?? {};
    Object.assign(peer, { generation: other?.generation_id, model: other?.model ?? peer.model, axis, layer, kind, step: asked.step });
    compared.hidden = !other;
    sees.delete(compared);
    keep();
    const reopen = (more) => openPeer(first, more);
    if (other) await showOne(compared, peer, left, { reopen, stepped: steppedTo(shown), sees });
  };
  const open = async (generation, changes = {}) => {
    // What is uncovered stays so for another axis or layer of it, and not for another completion.
    if (generation !== asked.generation) peer.is_revealed = undefined;
    Object.assign(asked, { generation, is_revealed: undefined, step: undefined }, changes);
    keep();
    for (const link of list.querySelectorAll("a")) link.ariaCurrent = link.dataset.generation === generation ? "true" : null;
    const reopen = (more) => open(generation, { is_revealed: asked.is_revealed, step: asked.step, ...more });
    const compare = (first) => field("Compare with", choice(
      [["", "nothing"], ...first.others.map((one) => [one.generation_id, nameOf(one)])], peerOf(first.others)?.generation_id ?? "",
      (value) => openPeer(first, { generation: value, model: undefined, is_revealed: undefined })));
    const first = await showOne(shown, asked, left, { reopen, stepped: steppedTo(compared), sees, compare });
    if (first) await openPeer(first);
  };
  const load = async () => {
    keep();
    try {
      const found = await get("completions", asked, left);
      list.replaceChildren(...listed(found, open, set));
      const listedIds = found.completions.map((one) => one.generation_id);
      const generation = asked.generation ?? listedIds[0];
      compared.hidden ||= !generation;
      if (generation) await open(generation, { step: asked.step });
      else shown.replaceChildren(note("No completion matches."));
    } catch (error) {
      if (!left.aborted) list.replaceChildren(errorLine(error.message));
    }
  };
  drawControls();
  await load();
}

const nameOf = ({ model, steering_mode, strength }) => (steering_mode ? `${model} · steered ${brief(strength)}` : model);

function listed(found, open, set) {
  const line = (one) => {
    const link = element("a", { href: "#", "data-generation": one.generation_id },
      element("span", { class: "line" }, isHidden(one.prompt) ? "(hidden prompt)" : one.prompt),
      element("span", { class: "line faint" },
        [nameOf(one), one.label, one.category, counted(one.token_count, "token")].filter(Boolean).join(" · ")));
    link.addEventListener("click", (event) => {
      event.preventDefault();
      open(one.generation_id);
    });
    return element("li", {}, link);
  };
  return [
    element("ul", { class: "list", "aria-label": "Completions" }, ...found.completions.map(line)),
    pager(found, "completion", (page) => set({ page })),
  ];
}

/** The completion `one` in its place; null where another was opened meanwhile. */
async function showOne(shown, one, left, { reopen, stepped, sees, compare }) {
  const { generation, axis, layer, is_revealed, kind } = one;
  let found;
  try {
    found = await get("completion", { generation, axis, layer, is_revealed }, left);
    // Another model has other layers and axes: take one of the same kind, or its first.
    if (found.axis === null && axis && found.places.length) {
      const nearest = found.places.find((place) => place.axis_id === axis) ?? found.places.find((place) => place.kind === kind) ?? found.places[0];
      found = await get("completion", { generation, axis: nearest.axis_id, is_revealed }, left);
    }
  } catch (error) {
    if (!left.aborted) shown.replaceChildren(errorLine(error.message));
    return null;
  }
  if (found.generation_id !== one.generation) return null;
  const axes = new Map(found.places.map(({ axis_id, name }) => [axis_id, name]));
  const layers = found.places.filter(({ axis_id }) => axis_id === found.axis).map(({ layer }) => layer);
  const isProjected = found.axis !== null;
  const controls = element("div", { class: "bar" },
    compare && found.others.length ? compare(found) : null,
    // The completion compared with follows the axis of the other.
    isProjected && !compare ? element("span", { class: "faint" }, `${axes.get(found.axis)}, layer ${found.layer}`) : null,
    ...(isProjected && compare ? [
      field("Axis", choice([...axes], found.axis, (axis) => reopen({ axis, layer: undefined }))),
      field("Layer", choice(layers.map((layer) => [`${layer}`, `${layer}`]), `${found.layer}`, (layer) => reopen({ layer }))),
    ] : []),
    isProjected ? element("a", { href: `#/sql?sql=${encodeURIComponent(statement(found))}` }, "As SQL") : null,
    found.is_hidden ? element("button", { type: "button", class: "reveal", onclick: async () => {
      await reopen({ is_revealed: "true" });
      shown.querySelector(".token[tabindex='0']")?.focus();
    } }, "Show the hidden text") : null,
  );
  const facts = [found.model, found.label, found.category, found.prompt_set,
    found.steering_mode && `steered: ${found.steering_mode} ${brief(found.strength)}`].filter(Boolean);
  const parts = [
    element("h2", {}, facts.join(" · ")),
    controls,
    element("p", { class: "prompt" }, textOf(found.prompt)),
  ];
  if (!found.steps.length) {
    shown.replaceChildren(...parts, note("No tokens of this completion are stored."));
    return found;
  }
  const readout = element("dl", { class: "readout", "aria-live": compare ? "polite" : "off" });
  let [looked, drawing] = [0, null];
  const { box, select } = tokens(found, stepped, (index) => {
    looked = index;
    readout.replaceChildren(...reading(found.steps[index]));
    drawing?.point(index);
  });
  const place = element("div", {});
  // At once, and where the other completion or a turned phone leaves another width.
  if (isProjected) new ResizeObserver(() => {
    drawing = curve(found.steps, found.centre, (index) => select(index), box.clientWidth);
    drawing.point(looked);
    place.replaceChildren(drawing.svg);
  }).observe(box);
  shown.replaceChildren(
    ...parts,
    box,
    ...(isProjected ? [
      element("div", { class: "scale" }, "lower", element("span", { class: "ramp" }), "higher",
        element("span", {}, `colourless at ${brief(found.centre)}, the mean over ${counted(found.scale_count, "token")} of ${found.model}; full colour ${REACH} standard deviations away`)),
      readout, place,
      note("Dots: the projection of each token. Line: its running mean. Left and right step, Home and End jump."),
    ] : [readout, note("Its tokens have no projections yet: run axes study or axes drift.")]),
  );
  const see = (wanted) => {
    const { steps } = found;
    const index = wanted === undefined ? steps.findIndex(({ step }) => step >= 0) : steps.findLastIndex(({ step }) => step <= Number(wanted));
    select(Math.max(0, index), false);
  };
  see(one.step);
  sees.set(shown, see);
  return found;
}

/** The tokens as buttons of which one is reached with Tab, the others with the arrow keys. */
function tokens(found, stepped, show) {
  const buttons = found.steps.map(({ step, token, projection }, index) => {
    const text = token === null ? "▇▇" : token.replace(/\n/g, "↵\n") || "∅";
    const button = element("button", {
      type: "button", tabindex: "-1", class: "token",
      title: projection === null ? `step ${step}` : `step ${step}: ${brief(projection)}`,
      "aria-label": `step ${step}, ${token === null ? "hidden token" : `token ${JSON.stringify(token)}`}, projection ${brief(projection)}`,
      onclick: () => select(index), onmouseenter: () => show(index), onfocus: () => show(index),
    }, text);
    if (step < 0) button.classList.add("of-prompt");
    if (token === null) button.classList.add("is-covered");
    if (projection !== null && found.spread) {
      const away = (projection - found.centre) / (REACH * found.spread);
      button.classList.add(away < 0 ? "low" : "high");
      button.style.setProperty("--heat", `${Math.round(85 * Math.min(1, Math.abs(away)))}%`);
    }
    return button;
  });
  let current = 0;
  const select = (index, isFocused = true) => {
    buttons[current].removeAttribute("aria-current");
    buttons[current].tabIndex = -1;
    current = index;
    buttons[current].setAttribute("aria-current", "true");
    buttons[current].tabIndex = 0;
    if (isFocused) buttons[current].focus();
    show(index);
    if (isFocused) stepped(found.steps[index].step);
  };
  const box = element("div", { class: "tokens", role: "group", "aria-label": "Tokens" }, ...buttons);
  box.addEventListener("mouseleave", () => show(current));
  box.addEventListener("keydown", (event) => {
    const ends = { Home: 0, End: buttons.length - 1 };
    const moves = { ArrowLeft: -1, ArrowRight: 1 };
    const to = event.key in ends ? ends[event.key] : current + (moves[event.key] ?? 0);
    if (!(event.key in ends) && !(event.key in moves)) return;
    event.preventDefault();
    select(Math.max(0, Math.min(buttons.length - 1, to)));
  });
  return { box, select };
}

const statement = ({ generation_id, axis, layer }) => `select step, token, projection, running_mean, logprob, entropy
from v_generation_projections
where generation_id = '${generation_id}' and axis_id = '${axis}' and layer = ${layer}
order by step`;

function reading({ step, token, projection, running_mean, logprob, entropy }) {
  const facts = {
    step, token: token === null ? "hidden" : JSON.stringify(token), projection: brief(projection),
    "running mean": brief(running_mean), "log-probability": brief(logprob), entropy: brief(entropy),
  };
  return Object.entries(facts).map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, `${value}`)));
}
