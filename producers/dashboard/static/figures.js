// Parts that both pages show.

import { el } from "./dom.js";
import { count, dollars, rate } from "./words.js";

const SIGNS = { active: "▶", paused: "❚❚", ended: "✓", canceling: "✕", admitting: "…" };

// A sign and a word: colour alone tells nothing to who cannot see it.
export function state(batch) {
  const jobs = batch.jobs;
  const bad = batch.state === "ended" && jobs.succeeded < jobs.total;
  return el("span", { class: `state ${bad ? "bad" : batch.state}` },
    el("span", { "aria-hidden": "true" }, bad ? "!" : SIGNS[batch.state] || ""), " ", batch.state,
    batch.simulated ? el("span", { class: "quiet" }, " (simulated)") : null);
}

export const ended = (jobs) => jobs.succeeded + jobs.errored + jobs.canceled + jobs.expired;

export function progress(batch) {
  const { jobs } = batch;
  const done = ended(jobs);
  const notOk = done - jobs.succeeded;
  return [
    el("progress", { max: Math.max(jobs.total, 1), value: done, "aria-label": `${batch.name}: jobs that have ended` }),
    el("span", { class: "under" }, `${count(done)} of ${count(jobs.total)}`, notOk ? el("span", { class: "wrong" }, `, ${count(notOk)} not answered`) : null),
  ];
}

export function cost(batch) {
  return [el("span", { class: "whole" }, dollars(batch.cost_usd)), batch.budget_usd ? el("span", { class: "under quiet whole" }, `of ${dollars(batch.budget_usd)}`) : null];
}

// Drawn, because browsers do not agree on how their own meter may look.
export function meter(label, used, limit) {
  const part = limit ? Math.min(1, used / limit) : 0;
  return el("svg", { class: "meter", viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(part * 100), "aria-valuetext": label },
    el("rect", { class: "all", width: 100, height: 6 }),
    el("rect", { class: part >= 0.95 ? "used full" : "used", width: (part * 100).toFixed(1), height: 6 }));
}

export const figure = (name, value, beside) =>
  el("div", { key: name, class: "figure" }, el("dt", {}, name), el("dd", {}, value, beside ? el("span", { class: "under quiet" }, beside) : null));

export const answers = (perSecond) => `${rate(perSecond)}/s`;

export function section(title, ...children) {
  const id = title.toLowerCase().replaceAll(" ", "-");
  return el("section", { key: title, "aria-labelledby": id }, el("h2", { id }, title), children);
}
