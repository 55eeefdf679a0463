// Shows the way of each vehicle that was posted on the page, step by step.

import { amount, byId, clock, duration, make, setText } from "./elements.js";

const items = new Map();
let processing = 0;

function record({ partition, offset, batch }) {
  const batched = batch < offset ? `, batch from offset ${batch}` : "";
  return `partition ${partition}, offset ${offset}${batched}`;
}

/** Returns the steps of a vehicle: title, kind, time, detail. */
function steps(way) {
  const { status, answeredAfter, created, processed, published, accepted, estimator } = way;
  const answered = status !== null && status !== undefined;
  const refused = answered && status !== 201;
  const result = [{
    title: "POST /stock", kind: refused ? "bad" : answered ? "done" : "now", at: way.posted,
    detail: answered ? `${status} after ${duration(answeredAfter)}${way.id ? `, id ${way.id}` : ""}` : "waiting for the answer",
  }];
  if (refused && !accepted) return result;
  // The list of stock, which has the time, is read less often.
  const isAccepted = accepted || created || status === 201;
  result.push({ title: "accepted by stock", kind: isAccepted ? "done" : "", at: accepted, detail: "" });
  result.push({
    title: "vehicle-created", kind: created ? "done" : isAccepted ? "now" : "", at: created?.at,
    detail: created ? record(created) : "",
  });
  if (way.letter && !processed) {
    result.push({ title: "dead letter", kind: "bad", at: null, detail: way.letter });
    return result;
  }
  const due = created?.at ? created.at + processing : null;
  result.push({
    title: estimator ? `estimator ${estimator}` : "estimate", kind: processed ? "done" : created ? "now" : "", at: null, due: processed ? null : due,
    detail: processed ? `took ${duration(Math.max(0, (processed.at ?? 0) - (created?.at ?? 0)))}` : "",
  });
  result.push({
    title: "vehicle-processed", kind: processed ? "done" : "", at: processed?.at,
    detail: processed ? `${record(processed)}${way.price ? `, ${amount(way.price)} USD` : ""}` : "",
  });
  result.push({
    title: "ad", kind: published ? "done" : processed ? "now" : "", at: published,
    detail: published ? way.ad : "",
  });
  return result;
}

function stage(way, all) {
  if (way.published) return ["ad published", "good"];
  const bad = all.find((step) => step.kind === "bad");
  if (bad) return [bad.title === "dead letter" ? "dead letter" : `refused, ${way.status}`, "bad"];
  return [all.findLast((step) => step.kind === "now" || step.kind === "done").title, ""];
}

/** The item that was opened last, unless by the user. */
let opened = null;
/** The vehicle that the form has posted last. */
let posted = null;

/** Opens the way of this vehicle when it appears. */
export function follow(vin) {
  posted = vin.trim();
}

function show(way, { jaegerUrl }, opens) {
  let item = items.get(way.vin);
  if (!item) {
    item = make("li", { class: "way" }, make("details", { open: opens },
      make("summary", {}, make("span", { class: "mono" }, way.vin), make("span", { class: "stage" })), make("ol", { class: "steps" })));
    items.set(way.vin, item);
    byId("ways").prepend(item);
    if (opens) {
      opened?.removeAttribute("open");
      opened = item.firstChild;
    }
  }
  const key = JSON.stringify(way);
  if (item.dataset.key === key) return;
  item.dataset.key = key;
  const all = steps(way);
  const [text, tone] = stage(way, all);
  const label = item.querySelector(".stage");
  setText(label, text);
  label.dataset.tone = tone;
  const rows = all.map(({ title, kind, at, detail, due }) => make("li", { class: `step ${kind}` },
    make("span", {}, title), at ? make("time", { datetime: new Date(at).toISOString() }, clock(at, true)) : make("span"),
    make("small", due ? { "data-due": due } : {}, detail)));
  if (way.trace) {
    const id = make("code", {}, way.trace);
    const link = jaegerUrl ? make("a", { href: `${jaegerUrl}/trace/${way.trace}`, rel: "noreferrer", target: "_blank" }, id) : id;
    rows.push(make("li", { class: "step plain" }, make("span", {}, "trace"), make("span"), make("small", {}, link)));
  }
  item.querySelector(".steps").replaceChildren(...rows);
}

export function showVehicles(vehicles, settings) {
  processing = settings.processing ?? 0;
  for (const [vin, item] of items) {
    if (!vehicles.some((way) => way.vin === vin)) {
      item.remove();
      items.delete(vin);
    }
  }
  const isFirst = items.size === 0;
  const sorted = vehicles.toSorted((one, other) => one.posted - other.posted);
  for (const way of sorted) show(way, settings, way.vin === posted || (isFirst && way === sorted.at(-1)));
  byId("vehicles-empty").hidden = vehicles.length > 0;
  tickVehicles();
}

export function tickVehicles() {
  const now = Date.now();
  for (const small of document.querySelectorAll(".steps [data-due]")) {
    const left = Math.ceil((Number(small.dataset.due) - now) / 1000);
    setText(small, left > 0 ? `done in ${left} s` : "due");
  }
}
