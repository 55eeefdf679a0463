// Receives the events of the console and keeps the page up to date.

import { connectActions, showSettings } from "./actions.js";
import { byId, clock, integer, make, setText } from "./elements.js";
import { showFaults, tickFaults } from "./faults.js";
import { showAds, showLetters } from "./lists.js";
import { showPipeline, tickPipeline } from "./pipeline.js";
import { showPlots } from "./plots.js";
import { showVehicles, tickVehicles } from "./vehicles.js";

const SAMPLES = 300;
const ADS = 30;
const VEHICLES = 200;

const state = { counts: {}, totals: {}, roles: [], kafka: {}, groups: {}, letters: { waiting: 0, shown: [] },
  settings: {}, ads: new Map(), samples: new Map(), vehicles: new Map() };

/** Adds items by their keys, and drops the oldest ones beyond `limit`. */
function merge(map, items, key, limit) {
  for (const item of items) {
    if (!map.has(item[key]) || map.get(item[key]) !== item) map.set(item[key], item);
  }
  for (const oldest of map.keys()) {
    if (map.size <= limit) break;
    map.delete(oldest);
  }
}

function apply(update, isSnapshot) {
  if (isSnapshot) {
    for (const map of [state.ads, state.samples, state.vehicles]) map.clear();
  }
  for (const name of ["counts", "totals", "roles", "kafka", "groups", "letters", "settings", "faults"]) {
    if (update[name] !== undefined) state[name] = update[name];
  }
  if (update.ads) merge(state.ads, update.ads, "id", ADS);
  if (update.samples) merge(state.samples, update.samples, "at", SAMPLES);
  if (update.vehicles) merge(state.vehicles, update.vehicles, "vin", VEHICLES);

  if (update.settings) showSettings(state.settings);
  if (update.counts) showCounts(state.counts);
  if (update.counts || update.roles || update.kafka || update.groups || update.totals || update.samples) {
    showPipeline(state);
  }
  if (update.samples) showPlots([...state.samples.values()]);
  if (update.ads || isSnapshot) showAds([...state.ads.values()], !isSnapshot);
  if (update.faults !== undefined) showFaults(state.faults);
  if (update.letters) showLetters(state.letters, state.settings);
  if (update.vehicles || isSnapshot) showVehicles([...state.vehicles.values()], state.settings);
}

const TILES = [
  ["accepted", "Accepted", () => "answered 201 by stock", () => ""],
  ["onTheirWay", "On their way", (counts) => (counts.late ? `${integer(counts.late)} late` : "none is late"), () => ""],
  ["ads", "Ads", () => "vehicles with an ad", () => ""],
  ["dead", "In dead letters", (counts) => (counts.dead ? "wait for a decision" : "of these vehicles"), (number) => (number ? "warn" : "")],
  ["lost", "Lost", (counts) => (counts.lost ? "see audit --repair" : "nothing is lost"), (number) => (number ? "bad" : "good")],
  ["doubled", "Doubled", (counts) => (counts.doubled ? "more than one ad" : "one ad for each"), (number) => (number ? "bad" : "good")],
];

function showCounts(counts) {
  const tiles = byId("tiles");
  if (!tiles.childElementCount) {
    for (const [name, title] of TILES) {
      tiles.append(make("div", { class: "tile", id: `tile-${name}` },
        make("dt", {}, title), make("dd", {}, make("span", {}, "–"), make("small", {}))));
    }
  }
  const counting = counts.since !== null && counts.since !== undefined;
  for (const [name, , note, tone] of TILES) {
    const tile = byId(`tile-${name}`);
    setText(tile.querySelector("span"), counting ? integer(counts[name]) : "–");
    setText(tile.querySelector("small"), counting ? note(counts) : "");
    tile.dataset.tone = counting ? tone(counts[name]) : "";
  }
  setText(byId("since"), counting ? `vehicles accepted since ${clock(counts.since)}` : "waiting for stock, not counting yet");
  const notes = [];
  if (counts.repeated) notes.push(`${integer(counts.repeated)} repeated events, of which ads made one ad each.`);
  if (counts.unfollowed) notes.push(`${integer(counts.unfollowed)} vehicles are counted without details, because too many were on their way at once.`);
  setText(byId("reconciliation-note"), notes.join(" "));
}

function showConnection(kind, text) {
  byId("connection").dataset.state = kind;
  setText(byId("connection-text"), text);
}

function connect() {
  // The browser reconnects by itself and names the last event that it received.
  const events = new EventSource("events");
  const receive = (isSnapshot) => (event) => {
    showConnection("live", "live");
    apply(JSON.parse(event.data), isSnapshot);
  };
  events.addEventListener("open", () => showConnection("live", "live"));
  events.addEventListener("snapshot", receive(true));
  events.addEventListener("delta", receive(false));
  events.addEventListener("error", () => {
    showConnection("lost", "disconnected, reconnecting");
    if (events.readyState === EventSource.CLOSED) {
      // After an answer that is not a stream, such as that of a proxy.
      setTimeout(connect, 2000);
    }
  });
}

connectActions(state);
connect();
setInterval(() => {
  tickPipeline(state);
  tickFaults();
  tickVehicles();
}, 500);
