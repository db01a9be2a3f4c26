// One small line over time. Its figures are said in words too: a picture alone tells a screen reader nothing.

import { el } from "./dom.js";

const WIDTH = 600, HEIGHT = 90;

export function chart(name, at, values, say, everyS) {
  const highest = Math.max(...values, 0);
  const now = values.length ? values[values.length - 1] : 0;
  const said = values.length
    ? `${say(now)} now, ${say(highest)} at most in the last ${Math.max(1, Math.round((values.length * everyS) / 60))} min`
    : "no figures yet: they are taken every five seconds";
  return el("figure", { key: name, class: "chart" },
    el("figcaption", {}, el("span", {}, name), " ", el("strong", {}, values.length ? say(now) : ""), " ", el("span", { class: "quiet" }, values.length ? `at most ${say(highest)}` : said)),
    el("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${name}: ${said}` },
      el("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT - 1, y2: HEIGHT - 1 }),
      values.length > 1 ? lines(at, values, highest || 1, everyS) : null));
}

function lines(at, values, highest, everyS) {
  const span = Math.max(at[at.length - 1] - at[0], everyS * 24);
  const start = at[at.length - 1] - span;
  const x = (moment) => (((moment - start) / span) * WIDTH).toFixed(1);
  const y = (value) => (HEIGHT - 2 - (value / highest) * (HEIGHT - 8)).toFixed(1);
  const points = values.map((value, place) => `${x(at[place])},${y(value)}`);
  return [
    el("polygon", { class: "area", points: `${x(at[0])},${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}` }),
    el("polyline", { class: "stroke", points: points.join(" "), "vector-effect": "non-scaling-stroke" }),
  ];
}
