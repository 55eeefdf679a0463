// Draws the pipeline: what each part does, and what its readiness says.

import { byId, clock, duration, integer, make, rate, setText } from "./elements.js";

const STATES = { ready: "ready", waiting: "not ready", unreachable: "unreachable", unknown: "unknown" };
const RANK = ["ready", "unknown", "waiting", "unreachable"];

const nodes = new Map();

function node(kind, name, title) {
  const state = make("span", { class: "state" }, make("span", { class: "dot", "aria-hidden": "true" }), make("span"));
  const parts = {
    state, figures: make("dl", { class: "figures" }), members: make("ol", { class: "members" }),
    reasons: make("ul", { class: "reasons", hidden: true }),
  };
  const root = make("li", { class: "node", id: `node-${name}`, "data-kind": kind },
    make("div", { class: "node-head" }, make("h3", {}, title), state), parts.figures, parts.members, parts.reasons,
    make("span", { class: "pulse", "aria-hidden": "true" }));
  nodes.set(name, { root, ...parts });
  return root;
}

function build() {
  byId("pipeline").append(
    node("role", "stock", "POST → stock"), node("topic", "created", "vehicle-created"), node("role", "estimate", "estimate"),
    node("topic", "processed", "vehicle-processed"), node("role", "ads", "ads"));
}

function setState(name, readiness, text, reasons) {
  const { root, state, reasons: list } = nodes.get(name);
  root.dataset.state = readiness;
  setText(state.lastChild, text);
  const key = JSON.stringify(reasons);
  if (list.dataset.key !== key) {
    list.dataset.key = key;
    list.replaceChildren(...reasons.map(([what, why]) => make("li", {}, make("b", {}, what), ` ${why}`)));
    list.hidden = !reasons.length;
  }
}

function setFigures(name, figures) {
  const { figures: list } = nodes.get(name);
  figures.forEach(([title, value], index) => {
    if (!list.children[2 * index]) list.append(make("dt", {}, title), make("dd"));
    setText(list.children[2 * index], title);
    setText(list.children[2 * index + 1], value);
  });
  while (list.children.length > 2 * figures.length) list.lastChild.remove();
}

function showRole(name, roles) {
  if (!roles.length) {
    setState(name, "unknown", "", []);
    return;
  }
  const worst = roles.reduce((worst, role) => (RANK.indexOf(role.readiness) > RANK.indexOf(worst) ? role.readiness : worst), "ready");
  const ready = roles.filter((role) => role.readiness === "ready").length;
  const text = roles.length > 1 ? `${ready} of ${roles.length} ready` : STATES[worst];
  const named = (role) => (roles.length > 1 ? `${new URL(role.url).host} ` : "");
  setState(name, worst, text, roles.flatMap((role) => role.reasons.map(([what, why]) => [`${named(role)}${what}`, why])));
}

export function showPipeline({ roles, kafka, groups, totals, samples, settings }) {
  if (!nodes.size) build();
  const of = (kind) => roles.filter((role) => role.kind === kind);
  for (const kind of ["stock", "estimate", "ads"]) showRole(kind, of(kind));
  const last = [...samples.values()].at(-1) ?? { accepted: 0, published: 0, ads: 0 };
  const lag = (group) => (group ? integer(group.lag) : "–");
  const broken = kafka.error ? [["kafka", kafka.error]] : [];
  for (const [name, group] of [["created", groups.estimate], ["processed", groups.ads]]) {
    setState(name, kafka.error ? "unreachable" : group ? "ready" : "unknown", kafka.error ? "unreachable" : "", broken);
  }
  setFigures("stock", [["accepted", `${rate(last.accepted)} /s`], ["p99 of POST", duration(last.postP99)], ["since start", integer(totals.accepted ?? 0)]]);
  setFigures("created", [["published", `${rate(last.published)} /s`], ["lag of estimate", lag(groups.estimate)], ["partitions", groups.estimate ? integer(groups.estimate.partitions) : "–"]]);
  setFigures("processed", [["lag of ads", lag(groups.ads)], ["partitions", groups.ads ? integer(groups.ads.partitions) : "–"]]);
  setFigures("ads", [["ads", `${rate(last.ads)} /s`], ["p99 of the path", duration(last.pathP99)], ["since start", integer(totals.ads ?? 0)]]);
  const members = groups.estimate?.members ?? [];
  const inFlight = members.reduce((sum, member) => sum + member.inFlight, 0);
  setFigures("estimate", [["in flight", groups.estimate ? integer(inFlight) : "–"], ["group", groups.estimate ? groups.estimate.state || "no members" : "–"]]);
  showMembers(members, settings);
  for (const [name, flows] of [["stock", last.accepted], ["created", last.published], ["estimate", last.ads], ["processed", last.ads]]) {
    nodes.get(name).root.classList.toggle("flows", flows > 0);
  }
  setText(byId("pipeline-note"), settings.processing === undefined ? "" : `an estimate takes ${duration(settings.processing)}`);
}

function showMembers(members, settings) {
  const list = nodes.get("estimate").members;
  while (list.children.length > members.length) list.lastChild.remove();
  members.forEach((member, index) => {
    if (!list.children[index]) {
      list.append(make("li", { class: "member" },
        make("div", { class: "member-line" }, make("span", {}, make("span"), make("span", { class: "chips" })), make("b")),
        make("div", { class: "bars", "aria-hidden": "true" }), make("small")));
    }
    const item = list.children[index];
    const [line, bars] = item.children;
    const [name, chips] = line.firstChild.children;
    setText(name, `estimator ${index + 1}`);
    item.title = `${member.id} ${member.host}`;
    const key = member.partitions.join();
    if (chips.dataset.key !== key) {
      chips.dataset.key = key;
      chips.replaceChildren(...member.partitions.map((partition) => make("span", { class: "chip" }, `p${partition}`)));
    }
    setText(line.lastChild, `${integer(member.inFlight)} in flight`);
    while (bars.children.length > member.written.length) bars.lastChild.remove();
    while (bars.children.length < member.written.length) bars.append(make("span", { class: "bar" }, make("span")));
  });
  tickMembers(members, settings);
}

/** Moves the countdowns: each bar is a vehicle, and is full when its estimate is due. */
function tickMembers(members, { processing }) {
  const now = Date.now();
  members.forEach((member, index) => {
    const item = nodes.get("estimate").members.children[index];
    if (!item || processing === undefined) return;
    member.written.forEach((written, position) => {
      const share = processing ? Math.min(1, Math.max(0, (now - written) / processing)) : 1;
      const bar = item.children[1].children[position]?.firstChild;
      if (bar) bar.style.height = `${Math.round(share * 100)}%`;
    });
    const due = member.written.length ? member.written[0] + processing : null;
    const left = due === null ? null : Math.ceil((due - now) / 1000);
    setText(item.lastChild, left === null ? "no vehicle in flight" : left > 0 ? `next at ${clock(due)}, in ${left} s` : "next is due");
  });
}

export function tickPipeline({ groups, settings }) {
  if (nodes.size) tickMembers(groups.estimate?.members ?? [], settings);
}
