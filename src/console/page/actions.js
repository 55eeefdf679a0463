// Posts vehicles and resolves dead letters.

import { byId, integer, make, setText } from "./elements.js";
import { follow } from "./vehicles.js";

const MAKES = [
  ["WVW", "Volkswagen", ["Golf", "Passat", "Polo", "Tiguan"]], ["WBA", "BMW", ["118i", "320d", "X3", "530e"]],
  ["WDD", "Mercedes-Benz", ["A 180", "C 220", "E 300", "GLC 250"]], ["ZFA", "Fiat", ["500", "Panda", "Tipo"]],
  ["VF1", "Renault", ["Clio", "Captur", "Megane"]], ["VF3", "Peugeot", ["208", "308", "3008"]],
  ["JTD", "Toyota", ["Corolla", "Yaris", "RAV4", "Prius"]], ["JHM", "Honda", ["Civic", "Jazz", "CR-V"]],
  ["KMH", "Hyundai", ["i20", "i30", "Tucson"]], ["YV1", "Volvo", ["V60", "XC40", "XC60"]],
  ["TMB", "Skoda", ["Octavia", "Fabia", "Superb"]], ["1FA", "Ford", ["Focus", "Mustang", "Fiesta"]],
];
const SYMBOLS = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789";
const VALUES = { A: 1, B: 2, C: 3, D: 4, E: 5, F: 6, G: 7, H: 8, J: 1, K: 2, L: 3, M: 4, N: 5, P: 7, R: 9, S: 2, T: 3, U: 4, V: 5, W: 6, X: 7, Y: 8, Z: 9 };
const WEIGHTS = [8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2];
const BULK = 100;
/** The number of requests of a bulk that are in progress at the same time. */
const CONCURRENCY = 6;
const KEY = "vehicle-platform.api-key";

const below = (limit) => crypto.getRandomValues(new Uint32Array(1))[0] % limit;
const one = (list) => list[below(list.length)];

/** Returns a VIN with a right check digit in its ninth place (ISO 3779, 49 CFR 565.15). */
export function newVin(prefix) {
  const symbols = [...prefix, ...Array.from({ length: 14 }, () => one(SYMBOLS))];
  const sum = symbols.reduce((sum, symbol, index) => sum + WEIGHTS[index] * (VALUES[symbol] ?? Number(symbol)), 0);
  symbols[8] = sum % 11 === 10 ? "X" : String(sum % 11);
  return symbols.join("");
}

function newVehicle() {
  const [prefix, manufacturer, models] = one(MAKES);
  const year = new Date().getFullYear() - below(15);
  return { vin: newVin(prefix), model: one(models), manufacturer, year, odometer: 1000 + below(180_000), odometerUnit: "km" };
}

const FIELDS = ["vin", "model", "manufacturer", "year", "odometer", "odometerUnit"];
const field = (name) => byId("vehicle-form").elements.namedItem(name);

function fill(vehicle) {
  for (const name of FIELDS) field(name).value = vehicle[name];
}

export function say(id, text, tone = "") {
  const result = byId(id);
  result.dataset.tone = tone;
  setText(result, text);
}

/** Sends a change. Asks for the API key when it is missing or wrong, and sends it again. */
export async function send(path, body) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
    if (response.status !== 401 || !(await askForKey())) return response;
  }
}

let asking = null;

function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = byId("key-dialog");
    byId("key").value = "";
    dialog.returnValue = "cancel";
    dialog.addEventListener("close", () => {
      asking = null;
      const key = byId("key").value.trim();
      const given = dialog.returnValue === "confirm" && key !== "";
      if (given) sessionStorage.setItem(KEY, key);
      resolve(given);
    }, { once: true });
    dialog.showModal();
    byId("key").focus();
  });
  return asking;
}

/** Returns what a problem says, in one line. */
export async function reason(response) {
  const problem = await response.json().catch(() => ({}));
  return [problem.title ?? `status ${response.status}`, problem.detail].filter(Boolean).join(": ");
}

function clearErrors() {
  for (const name of FIELDS) {
    field(name).removeAttribute("aria-invalid");
    field(name).removeAttribute("aria-describedby");
    byId(`${name}-error`)?.remove();
  }
}

function showErrors(errors) {
  for (const { pointer, detail } of errors) {
    const name = (pointer ?? "").slice(1);
    if (!FIELDS.includes(name) || byId(`${name}-error`)) continue;
    field(name).setAttribute("aria-invalid", "true");
    field(name).setAttribute("aria-describedby", `${name}-error`);
    field(name).closest(".field").append(make("p", { class: "error", id: `${name}-error` }, detail));
  }
  const first = FIELDS.find((name) => field(name).hasAttribute("aria-invalid"));
  if (first) field(first).focus();
}

const number = (text) => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text);

async function postOne() {
  clearErrors();
  const vehicle = Object.fromEntries(FIELDS.map((name) => [name, field(name).value]));
  vehicle.year = number(vehicle.year);
  vehicle.odometer = number(vehicle.odometer);
  say("post-result", "posting");
  follow(vehicle.vin);
  try {
    const response = await send("vehicles", vehicle);
    if (response.status === 201) {
      const { id } = await response.json();
      say("post-result", `Accepted as vehicle ${id}.`, "good");
      fill(newVehicle());
      return;
    }
    const problem = await response.clone().json().catch(() => ({}));
    say("post-result", await reason(response), "bad");
    if (problem.errors) showErrors(problem.errors);
  } catch {
    say("post-result", "The console does not answer.", "bad");
  }
}

async function postMany() {
  const refused = new Map();
  let accepted = 0;
  let left = BULK;
  const postNext = async () => {
    left -= 1;
    try {
      const response = await send("vehicles", newVehicle());
      if (response.status === 201) accepted += 1;
      else {
        // The visitor gave no key.
        if (response.status === 401) left = 0;
        const why = await reason(response);
        refused.set(why, (refused.get(why) ?? 0) + 1);
      }
    } catch {
      refused.set("The console does not answer", (refused.get("The console does not answer") ?? 0) + 1);
    }
    say("post-result", `posting, ${integer(BULK - left)} of ${integer(BULK)}`);
  };
  const work = async () => {
    while (left > 0) await postNext();
  };
  // A key that is missing is asked for once, before there are several requests.
  await postNext();
  await Promise.all(Array.from({ length: CONCURRENCY }, work));
  const reasons = [...refused].map(([why, count]) => `${integer(count)} refused (${why})`);
  say("post-result", [`${integer(accepted)} of ${integer(BULK)} accepted`, ...reasons].join(", "), refused.size ? "bad" : "good");
}

async function whileDisabled(buttons, work) {
  for (const button of buttons) button.disabled = true;
  try {
    await work();
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

const TEXTS = {
  replay: ["Replay this dead letter?", "Its record is put back on its topic, exactly once. If the cause is not fixed, it becomes a dead letter again.", "Replay"],
  discard: ["Discard this dead letter?", "Nothing is put back. The vehicle gets no ad unless audit --repair publishes it again.", "Discard"],
};

function confirm(title, text, action) {
  return new Promise((resolve) => {
    const dialog = byId("confirm");
    setText(byId("confirm-title"), title);
    setText(byId("confirm-text"), text);
    setText(byId("confirm-ok"), action);
    dialog.returnValue = "cancel";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "confirm"), { once: true });
    dialog.showModal();
    byId("confirm-cancel").focus();
  });
}

export async function confirmAndResolve(letter, how) {
  const [title, text, action] = TEXTS[how];
  if (!(await confirm(title, `${letter.id}. ${text}`, action))) return;
  say("letters-result", how === "replay" ? "replaying" : "discarding");
  try {
    const response = await send(`letters/${how}`, { letters: [letter.id] });
    if (!response.ok) {
      say("letters-result", await reason(response), "bad");
      return;
    }
    const { skipped } = await response.json();
    if (skipped.length) say("letters-result", `${skipped[0].letter} was skipped: ${skipped[0].reason}`, "bad");
    else say("letters-result", how === "replay" ? `Replayed ${letter.id}.` : `Discarded ${letter.id}.`, "good");
  } catch {
    say("letters-result", "The console does not answer.", "bad");
  }
}

export function showSettings({ readOnly, needsKey, version }) {
  byId("read-only").hidden = !readOnly;
  byId("post").hidden = readOnly;
  byId("vehicles").hidden = readOnly;
  byId("key-button").hidden = !needsKey || readOnly;
  setText(byId("version"), version);
}

export function connectActions() {
  fill(newVehicle());
  const buttons = [byId("post-one"), byId("post-many")];
  byId("draw").addEventListener("click", () => fill(newVehicle()));
  byId("vehicle-form").addEventListener("submit", (event) => {
    event.preventDefault();
    whileDisabled(buttons, postOne);
  });
  byId("post-many").addEventListener("click", () => whileDisabled(buttons, postMany));
  byId("key-button").addEventListener("click", () => askForKey());
  byId("key-cancel").addEventListener("click", () => byId("key-dialog").close());
}
