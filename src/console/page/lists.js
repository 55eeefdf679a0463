// Shows the newest ads and the dead letters.

import { confirmAndResolve } from "./actions.js";
import { amount, byId, clock, integer, make, moment, setChildren, setText } from "./elements.js";

export function showAds(ads, highlight) {
  const rows = byId("ads-rows");
  const known = new Map([...rows.children].map((row) => [row.dataset.id, row]));
  const newest = ads.slice().reverse();
  setChildren(rows, newest.map((ad) => known.get(ad.id) ?? make("tr", { "data-id": ad.id, class: highlight ? "new" : "" },
    make("td", {}, make("time", { datetime: new Date(ad.published).toISOString() }, moment(ad.published))),
    make("td", {}, `${ad.name}, ${ad.year}`, make("small", { class: "mono" }, ad.vin)),
    make("td", { class: "number" }, `${amount(ad.price)} ${ad.unit}`))));
  byId("ads-empty").hidden = ads.length > 0;
  byId("ads-scroll").hidden = ads.length === 0;
}

export function showLetters({ waiting, shown }, { readOnly }) {
  const list = byId("letters-list");
  const known = new Map([...list.children].map((item) => [item.dataset.id, item]));
  const items = shown.map((letter) => known.get(letter.id) ?? describe(letter, readOnly));
  const before = [...list.children];
  const focused = before.findIndex((item) => item.contains(document.activeElement));
  setChildren(list, items);
  // The focus of an item that is gone moves to the next one.
  if (focused >= 0 && !before[focused].isConnected) {
    const next = before.slice(focused).find((item) => item.isConnected) ?? list.lastElementChild;
    (next?.querySelector("button:enabled") ?? byId("letters-title")).focus();
  }
  byId("letters-empty").hidden = waiting > 0;
  const more = waiting > shown.length ? `, the newest ${integer(shown.length)} are shown` : "";
  setText(byId("letters-count"), waiting ? `${integer(waiting)} waiting${more}` : "");
}

function describe(letter, readOnly) {
  const origin = letter.origin ? `, partition ${letter.origin[0]}, offset ${letter.origin[1]}` : "";
  const times = letter.replays === 1 ? "once" : `${letter.replays} times`;
  const came = letter.replays ? `, replayed ${times} and came back` : "";
  const died = letter.died ? `${clock(letter.died)}  ` : "";
  const item = make("li", { class: "letter", "data-id": letter.id },
    make("p", { class: "why" }, letter.reason),
    make("p", { class: "origin" }, `${died}from ${letter.topic}${origin}${letter.group ? `, refused by ${letter.group}` : ""}${came}`),
    letter.key === null ? null : make("p", { class: "origin" }, "key ", make("code", {}, letter.key)),
    letter.leftOut ? make("p", { class: "origin" }, `omitted: ${letter.leftOut}`) : null);
  if (!readOnly) {
    const button = (how, text) => {
      const element = make("button", { type: "button", class: "small", "aria-label": `${text} ${letter.id}`, "data-how": how }, text);
      element.addEventListener("click", () => confirmAndResolve(letter, how));
      return element;
    };
    const replay = button("replay", "Replay");
    replay.disabled = Boolean(letter.leftOut);
    item.append(make("div", { class: "buttons" }, replay, button("discard", "Discard")));
  }
  return item;
}
