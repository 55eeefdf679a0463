// Plots the figures of the last minutes.

import { byId, draw, duration, integer, make, rate, setText } from "./elements.js";

const SPAN = 300_000;
const WIDTH = 300;
const HEIGHT = 100;

const PLOTS = [
  { title: "Throughput", format: (value) => `${rate(value)} /s`, least: 1,
    series: [["accepted", "accepted"], ["published", "published"], ["ads", "ads"]] },
  { title: "Lag", format: (value) => integer(Math.round(value)), least: 5,
    series: [["estimateLag", "estimate"], ["adsLag", "ads"]] },
  { title: "Latency, p99", format: duration, least: 10,
    series: [["postP99", "POST"], ["pathP99", "path less the estimate"]] },
];

let built;

function build() {
  built = PLOTS.map(({ title, series }) => {
    const figures = series.map(() => make("b", {}, "–"));
    const lines = series.map((_, index) => draw("path", { class: `series-${index + 1}` }));
    const grid = [0, 0.5, 1].map((share) => draw("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT * share, y2: HEIGHT * share }));
    const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": title }, ...grid, ...lines);
    const top = make("span");
    const plot = make("article", { class: "plot" },
      make("div", { class: "heading" }, make("h3", {}, title), make("span", { class: "note" }, top)),
      svg, make("div", { class: "axis", "aria-hidden": "true" }, make("span", {}, "5 min ago"), make("span", {}, "now")),
      make("div", { class: "legend" }, ...series.map(([, name], index) => make("span", { class: `series-${index + 1}` }, `${name} `, figures[index]))));
    byId("plots").append(plot);
    return { figures, lines, svg, top };
  });
}

/** Returns the smallest of 1, 2, 5, 10, 20, ... that is at least `value`. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

/** Returns a path through the values, with a gap where one is missing. A value between two gaps is a dot. */
function line(samples, key, x, y) {
  let path = "";
  let draws = false;
  for (const sample of samples) {
    const value = sample[key];
    const exists = value !== null && value !== undefined;
    if (exists) path += draws ? `L${x(sample)} ${y(value)}` : `M${x(sample)} ${y(value)}h0`;
    draws = exists;
  }
  return path;
}

export function showPlots(samples) {
  if (!built) build();
  if (!samples.length) return;
  const now = samples.at(-1).at;
  PLOTS.forEach(({ title, format, least, series }, number) => {
    const { figures, lines, svg, top } = built[number];
    const values = series.flatMap(([key]) => samples.map((sample) => sample[key] ?? 0));
    const scale = roundUp(Math.max(least, ...values));
    setText(top, format(scale));
    const label = series.map(([key, name], index) => {
      const value = samples.at(-1)[key];
      const text = value === null || value === undefined ? "–" : format(value);
      setText(figures[index], text);
      const x = ({ at }) => (WIDTH * (1 - (now - at) / SPAN)).toFixed(1);
      const y = (value) => (HEIGHT * (1 - value / scale)).toFixed(1);
      lines[index].setAttribute("d", line(samples, key, x, y));
      return `${name} ${text}`;
    });
    svg.setAttribute("aria-label", `${title} now: ${label.join(", ")}`);
  });
}
