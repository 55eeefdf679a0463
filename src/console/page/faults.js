// Shows the faults that dev offers, injects them, and marks what they affect in the pipeline.

import { reason, say, send } from "./actions.js";
import { byId, make, setText } from "./elements.js";

/** The nodes of the pipeline that a fault affects. */
const NODES = {
  estimate: () => ["estimate"], kafka: ({ target }) => TOPICS[target] ?? ["created", "processed"],
  registry: () => ["stock", "estimate", "ads"], database: ({ target }) => [target],
};
const TOPICS = { "stock.vehicle-created": ["created"], "stock.vehicle-processed": ["processed"] };

let faults = [];

const title = (name) => name[0].toUpperCase() + name.slice(1).replaceAll("-", " ");
/** The group numbers its members by itself, so a process has another name. */
const targetName = (part, target) => (part === "estimate" ? `process ${target}` : target);
const row = (name) => byId(`fault-${name}`);

/** Shows the offer: null when the platform runs without faults. */
export function showFaults(offer) {
  faults = offer?.faults ?? [];
  byId("faults").hidden = !faults.length;
  for (const fault of faults) {
    if (!row(fault.name)) byId("faults-list").append(describe(fault, offer.defaultSeconds));
  }
  tickFaults();
}

function describe({ name, description, part, targets, lasts }, seconds) {
  const id = `fault-${name}`;
  const choice = targets.length < 2 ? null
    : make("select", { "aria-label": `Target of: ${title(name)}` }, ...targets.map((target) => make("option", { value: target }, targetName(part, target))));
  const button = make("button", { type: "button", class: "small", "aria-describedby": `${id}-what` }, title(name));
  button.addEventListener("click", () => inject(name, choice?.value));
  return make("li", { class: "fault", id },
    make("div", { class: "buttons" }, button, choice, make("span", { class: "left" })),
    make("p", { class: "note", id: `${id}-what` }, `${description}${lasts ? `, for ${seconds}\u00a0s` : ""}.`));
}

async function inject(name, target) {
  say("faults-result", "");
  try {
    const response = await send(`faults/${name}`, target === undefined ? {} : { target });
    if (response.ok) say("faults-result", `${title(name)}: injected.`, "good");
    else say("faults-result", await reason(response), "bad");
  } catch {
    say("faults-result", "The console does not answer.", "bad");
  }
}

/** Moves the countdowns and the marks in the pipeline. */
export function tickFaults() {
  const marks = new Map();
  for (const { name, part, running } of faults) {
    const active = Boolean(running);
    const seconds = running?.ends ? Math.max(0, Math.ceil((running.ends - Date.now()) / 1000)) : null;
    const left = !active ? "" : seconds === null ? "begins" : `ends in ${seconds} s`;
    row(name).querySelector("button").disabled = active;
    setText(row(name).querySelector(".left"), left);
    if (!active) continue;
    for (const node of NODES[part](running)) {
      const what = running.target && !TOPICS[running.target] ? `${title(name)} (${targetName(part, running.target)})` : title(name);
      marks.set(node, [...(marks.get(node) ?? []), `${what}, ${left}`]);
    }
  }
  for (const node of document.querySelectorAll(".node")) {
    const texts = marks.get(node.id.slice("node-".length)) ?? [];
    let mark = node.querySelector(".fault-mark");
    if (!texts.length) {
      mark?.remove();
      continue;
    }
    if (!mark) {
      mark = make("p", { class: "fault-mark" });
      node.append(mark);
    }
    setText(mark, texts.join("; "));
  }
}
