// One batch: how far it is, what it costs, what went wrong and what to do, and what a person may do about it.

import { el, link, table } from "./dom.js";
import { answers, ended, figure, progress, section, state } from "./figures.js";
import { act, ask, change, person } from "./person.js";
import { count, dollars, duration, moment, rate, several, words } from "./words.js";

export function batchPage(seen) {
  const { batch } = seen;
  if (!batch) return [el("p", { class: "quiet" }, "Looking…")];
  const back = el("p", { key: "back" }, link("/", "← All batches"));
  if (batch.error) return [back, el("p", { class: "wrong", role: "alert" }, batch.error)];
  return [
    back,
    el("h1", { key: "title" }, batch.name, " ", state(batch)),
    batch.reason || batch.hint ? el("p", { key: "why", class: "why" }, [batch.reason, batch.hint].filter(Boolean).join("; ")) : null,
    el("div", { key: "progress", class: "wide" }, progress(batch)),
    person.signed_in ? actions(batch) : null,
    figures(batch),
    failures(batch),
    prediction(batch),
    facts(batch),
  ];
}

function figures(batch) {
  const used = batch.usage;
  const read = used.input_tokens + used.cache_creation_input_tokens + used.cache_read_input_tokens;
  return el("dl", { key: "figures", class: "figures" },
    figure("Cost", dollars(batch.cost_usd), costBeside(batch)),
    batch.budget_usd ? figure("Budget", dollars(batch.budget_usd), budgetBeside(batch)) : null,
    batch.state === "ended" ? null : figure("Answers", answers(batch.answers_per_s), batch.eta_s === null ? null : `${duration(batch.eta_s)} left`),
    figure("Tokens", count(read), `in, and ${count(used.output_tokens)} out`),
    figure("Time", duration(batch.elapsed_s), batch.bound_by ? `bound by ${words(batch.bound_by)}${batch.bound_by_default ? ", a default limit" : ""}` : null));
}

function costBeside(batch) {
  const parts = [];
  if (batch.unpriced_attempts) parts.push(`and ${several(batch.unpriced_attempts, "attempt")} of unknown cost`);
  if (batch.projected_usd && ended(batch.jobs) < batch.jobs.total) parts.push(`${dollars(batch.projected_usd)} expected in all`);
  else if (batch.estimate_usd) parts.push(`${dollars(batch.estimate_usd)} estimated`);
  return parts.join(", ") || null;
}

function budgetBeside(batch) {
  const aside = [batch.reserved_usd, batch.unknown_usd].map(Number);
  return aside.some((each) => each > 0) ? `${dollars((aside[0] + aside[1]).toFixed(6))} set aside` : null;
}

function failures(batch) {
  const { errors } = batch;
  const notWhole = Object.entries(batch.not_whole);
  if (!errors.length && !notWhole.length && !batch.jobs.canceled) return null;
  const rows = errors.map((group) => ({ key: `${group.state} ${group.kind} ${group.status} ${group.type} ${group.code}`, cells: [
    [words(group.kind), el("span", { class: "under quiet" }, [group.state, group.status, group.type, group.code].filter(Boolean).join(" "))],
    [count(group.jobs)],
    [group.custom_id || "", group.request_id ? el("span", { class: "under quiet" }, group.request_id) : null],
    [group.advice.replaceAll("BATCH", batch.name)],
  ] }));
  return section("What went wrong",
    rows.length ? table("Jobs without an answer, by what they failed of", ["Reason", "Jobs", "One of them", "What to do"], rows) : null,
    rows.length ? el("p", { class: "quiet" }, "What the server said may quote a prompt, so it is not on this page; it is in: ", el("code", {}, `promptmill status ${batch.batch_id}`)) : null,
    batch.jobs.canceled ? el("p", {}, `${several(batch.jobs.canceled, "job")} canceled.`) : null,
    notWhole.map(([reason, number]) => el("p", { key: reason }, `${several(number, "answer")} ended with ${words(reason)}, and ${number === 1 ? "is" : "are"} kept as ${number === 1 ? "it is" : "they are"}.`)));
}

function prediction(batch) {
  const found = batch.predicted;
  if (!found || !found.jobs) return null;
  const sides = [["as admitted", found.as_admitted], ["as learned", found.as_learned], ["actual", found.actual]];
  const rows = sides.filter(([, each]) => each).map(([name, each]) => ({ key: name, cells: [[name], [count(each.input_tokens)], [count(each.output_tokens)], [dollars(each.cost_usd, 4)]] }));
  return section("Predicted and actual", table(`For ${several(found.jobs, "answer")}`, ["Which", "Tokens in", "Tokens out", "Cost"], rows));
}

function facts(batch) {
  const jobs = Object.entries(batch.jobs).filter(([name, number]) => name !== "total" && number).map(([name, number]) => `${count(number)} ${name}`).join(", ");
  const failed = Object.entries(batch.failures).filter(([, number]) => number).map(([name, number]) => `${count(number)} ${words(name)}`).join(", ");
  const list = {
    "Id": batch.batch_id, "Model": batch.model, "Lane": batch.lane, "Endpoint": batch.endpoint, "Jobs": jobs || "none",
    "Attempts": count(batch.attempts) + (failed ? `, of them ${failed}` : ""),
    "Resting": batch.resting ? `${several(batch.resting.jobs, "job")} after failures, the next goes on in ${duration(batch.resting.next_in_s)}` : null,
    "Workers": several(batch.workers, "process", "processes"), "Priority": batch.priority, "Deadline": batch.deadline ? moment(batch.deadline) : null,
    "Submitted": moment(batch.created_at), "Started": moment(batch.started_at), "Ended": moment(batch.ended_at),
  };
  return section("Facts", el("dl", { class: "facts" }, Object.entries(list).filter(([, value]) => value !== null && value !== "").map(([name, value]) =>
    el("div", { key: name }, el("dt", {}, name), el("dd", {}, String(value))))));
}

function actions(batch) {
  const path = `/api/batches/${encodeURIComponent(batch.batch_id)}`;
  const button = (name, onclick, { key = name, type = "" } = {}) => el("button", { key, onclick, class: type }, name);
  // One button under two names: who has pressed it keeps the focus on it.
  const toggle = { key: "pause" };
  const runs = batch.state === "active" || batch.state === "paused";
  const failed = batch.jobs.errored + batch.jobs.expired;
  return el("div", { key: "actions", class: "buttons", role: "group", "aria-label": "What you may do" },
    batch.state === "active" ? button("Pause", () => act(`${path}/pause`), toggle) : null,
    batch.state === "paused" ? button("Resume", () => act(`${path}/resume`), toggle) : null,
    batch.state !== "canceling" && batch.state !== "admitting" ? button("Set budget", () => ask(`The budget of ${batch.name}`, {
      does: "Set it",
      fields: [{ name: "budget", label: "Dollars, or none", value: batch.larger_budget_usd || "", inputmode: "decimal" }],
      onDo: ({ budget }) => change(`${path}/set`, { budget: budget.trim() }),
    })) : null,
    failed && batch.state !== "canceling" ? button("Retry", () => ask(`Retry ${several(failed, "job")}?`, { text: "Jobs that errored or expired are asked again, and paid for again.", does: "Retry", onDo: () => change(`${path}/retry`) })) : null,
    runs ? button("Cancel", () => ask(`Cancel ${batch.name}?`, { text: "No further call of it begins. Calls in flight finish and are kept.", does: "Cancel the batch", danger: true, onDo: () => change(`${path}/cancel`) }), { type: "danger" }) : null);
}
