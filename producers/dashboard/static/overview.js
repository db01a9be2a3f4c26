// The first page: all batches, the limits and what waits for them, workers, keys, schedules.

import { chart } from "./chart.js";
import { el, link, table } from "./dom.js";
import { answers, cost, figure, meter, progress, section, state } from "./figures.js";
import { act, person } from "./person.js";
import { count, dollars, duration, moment, rate, several, share, words } from "./words.js";

export function overview(seen) {
  const { overview: now, history } = seen;
  if (!now) return [el("p", { class: "quiet" }, "Looking…")];
  return [
    el("h1", { class: "unseen", key: "title" }, "Overview"),
    figures(now, history),
    history ? charts(history) : null,
    batches(now),
    limits(now),
    workers(now.workers),
    now.keys ? keys(now.keys) : null,
    now.schedules ? schedules(now.schedules) : null,
  ];
}

function figures(now, history) {
  const last = (name) => (history && history[name].length ? history[name][history[name].length - 1] : 0);
  const sum = (list, of) => list.reduce((total, each) => total + of(each), 0);
  const told = now.limits && !now.limits.silence;
  const running = told ? sum(now.limits.pools, (pool) => pool.in_flight) : sum(now.workers, (worker) => worker.running);
  const slots = sum(now.workers, (worker) => worker.slots);
  return el("dl", { key: "figures", class: "figures" },
    figure("Answers", answers(last("answers_per_s"))),
    figure("Spending", `${dollars(last("usd_per_h").toFixed(4))}/h`),
    figure("Calls in flight", count(running), slots ? `of ${count(slots)} slots` : null),
    figure("Jobs left", count(now.jobs_left)),
    figure("Workers", count(now.workers.length), now.workers.length ? null : "start one: promptmill up"));
}

function charts(history) {
  return el("div", { key: "charts", class: "charts" },
    chart("Answers a second", history.at, history.answers_per_s, answers, history.every_s),
    chart("Dollars an hour", history.at, history.usd_per_h, (value) => `${dollars(value.toFixed(4))}/h`, history.every_s));
}

function batches(now) {
  const list = now.batches;
  if (!list.length) return section("Batches", el("p", {}, "There is no batch yet; make one with: ", el("code", {}, "promptmill submit FILE")));
  const rows = list.map((batch) => ({ key: batch.batch_id, cells: [
    [link(`/batch/${encodeURIComponent(batch.batch_id)}`, batch.name), el("span", { class: "under quiet" }, batch.model), runs(batch)],
    [state(batch), why(batch)],
    progress(batch),
    pace(batch),
    cost(batch),
  ] }));
  return section("Batches", table("The newest batches first", ["Batch", "State", "Progress", "Pace", "Cost"], rows),
    now.more ? el("p", { class: "quiet" }, `and ${several(now.more, "older batch", "older batches")} not ended: `, el("code", {}, "promptmill list --limit 1000")) : null);
}

// Of a schedule's runs that have ended only the newest has a line.
function runs(batch) {
  return batch.more_runs ? el("span", { class: "under quiet" }, `and ${several(batch.more_runs, "more run")} of `, link("#schedules", batch.schedule)) : null;
}

function why(batch) {
  const said = [batch.state === "ended" ? null : batch.reason, batch.hint].filter(Boolean);
  return said.map((sentence) => el("span", { class: "under" }, sentence));
}

function pace(batch) {
  if (batch.state === "ended") return el("span", { class: "quiet" }, batch.ended_at ? ["ended ", el("span", { class: "whole" }, moment(batch.ended_at))] : "");
  return [batch.state === "active" || batch.answers_per_s ? answers(batch.answers_per_s) : "", batch.eta_s === null ? null : el("span", { class: "under quiet" }, el("span", { class: "whole" }, `${duration(batch.eta_s)} left`))];
}

function limits(now) {
  const found = now.limits;
  if (!found) return null;
  const pools = found.pools.filter((pool) => pool.in_use);
  const idle = found.pools.length - pools.length;
  return section("Limits and what waits",
    found.silence ? el("p", { class: "wrong" }, `The limits are not known: ${found.silence}.`) : null,
    el("div", { class: "pools" }, pools.map((pool) => onePool(pool, found))),
    waitsElsewhere(found, pools),
    idle ? el("p", { class: "quiet" }, `${several(idle, "other model group")} known and not in use`) : null,
    !found.pools.length && !found.silence ? el("p", { class: "quiet" }, "No call was made within the last hour.") : null);
}

function onePool(pool, found) {
  const waiting = (found.waiting || []).find((each) => each.group === pool.group);
  return el("article", { key: `${pool.account} ${pool.group}`, class: "pool" },
    el("h3", {}, pool.group, el("span", { class: "quiet" }, ` account ${pool.account}`)),
    el("ul", { class: "dimensions" }, Object.entries(pool.dimensions).map(([name, each]) => dimension(name, each))),
    el("p", {}, el("strong", {}, "Next call: "), pool.next_call),
    el("p", { class: "quiet" }, `${several(pool.in_flight, "call")} in flight`, pool.share < 0.995 ? `, ${share(pool.share)} of the limit allowed now` : "", waiting ? `, ${waits(waiting)}` : ""));
}

const SOURCES = { configured: "set by you", probed: "from the API", learned: "from the replies", default: "a default; nobody has set it" };

function dimension(name, each) {
  const said = each.limit === null ? `${count(each.used)} a minute, no limit` : `${count(each.used)} of ${count(each.limit)} a minute`;
  return el("li", { key: name },
    el("span", {}, words(name)), each.limit === null ? el("span", {}) : meter(`${words(name)}: ${said}`, each.used, each.limit),
    el("span", { title: SOURCES[each.source] }, said, each.other_programs ? el("span", { class: "quiet" }, `, others ${count(each.other_programs)}`) : null));
}

function waits(group) {
  const most = group.batches.filter((batch) => batch.pending + batch.queued).slice(0, 3).map((batch) => `${batch.name} ${count(batch.pending + batch.queued)}`);
  const total = group.pending + group.queued;
  return total ? `${several(total, "job")} ${total === 1 ? "waits" : "wait"} (${most.join(", ")})` : "nothing waits";
}

function waitsElsewhere(found, pools) {
  const others = (found.waiting || []).filter((group) => group.pending + group.queued && !pools.some((pool) => pool.group === group.group));
  return others.map((group) => el("p", { key: group.group }, el("strong", {}, `${group.group}: `), waits(group), found.workers ? "" : "; no worker is running: promptmill up"));
}

function workers(list) {
  if (!list.length) return section("Workers", el("p", {}, "No worker is running; start one with: ", el("code", {}, "promptmill up")));
  const rows = list.map((worker) => ({ key: worker.id, cells: [
    [`${worker.host}, process ${worker.pid}`],
    [meter(`${worker.host} ${worker.pid}: slots in use`, worker.running, worker.slots), el("span", { class: "under" }, `${count(worker.running)} of ${count(worker.slots)}`)],
    [worker.endpoint || "unknown"],
    [worker.version],
    [moment(worker.started_at)],
  ] }));
  return section("Workers", table("Worker processes that live; slots as each told last", ["Process", "Slots in use", "Calls", "Version", "Since"], rows));
}

function keys(found) {
  const notice = found.fault || (found.keys.length && !found.workers ? "No worker tells of its keys, so nobody knows whether they work." : null);
  const rows = found.keys.map((each) => ({ key: `${each.account} ${each.label}`, cells: [
    [each.label, el("span", { class: "under quiet" }, `${each.source}${each.simulated ? ", simulated" : ""}`)],
    [each.account],
    [el("span", { class: each.state === "usable" ? "state active" : "state paused" }, each.workers ? each.state : "not told"), keyReasons(each)],
    [each.expires_at ? moment(each.expires_at) : "no end is known"],
    [each.last_used_at ? moment(each.last_used_at) : "", each.workers ? el("span", { class: "under quiet" }, `${several(each.calls_lately, "call")} in 5 min`) : null],
  ] }));
  return section("Keys",
    notice ? el("p", { class: found.fault ? "wrong" : "quiet" }, notice) : null,
    rows.length ? table("By label; their values are nowhere", ["Key", "Account", "State", "Ends", "Last used"], rows) : el("p", { class: "quiet" }, "No key is known: no worker tells of one, and none is set here."));
}

function keyReasons(each) {
  const reasons = Object.entries(each.refused_for).map(([group, why]) => `not for ${group}: ${why}`);
  if (each.why) reasons.unshift(`${each.until ? `until ${moment(each.until)}: ` : ""}${each.why}`);
  if (each.usable_at && each.usable_at < each.workers) reasons.unshift(`usable at ${each.usable_at} of ${each.workers} workers`);
  return reasons.map((reason) => el("span", { class: "under" }, reason));
}

function schedules(list) {
  if (!list.length) return section("Schedules", el("p", { class: "quiet" }, "There is no schedule; make one with: ", el("code", {}, "promptmill schedule add")));
  const rows = list.map((each) => ({ key: each.name, cells: [
    [each.name, el("span", { class: "under quiet" }, `${each.when}, ${each.timezone}`)],
    [each.state, each.hint ? el("span", { class: "under wrong" }, each.hint) : null],
    [each.next_due.length ? each.next_due.map((due) => el("span", { class: "line" }, moment(due))) : "never"],
    [each.runs.length ? each.runs.map(oneRun) : "none yet"],
    [person.signed_in ? el("button", { "aria-label": `Run ${each.name} now`, onclick: () => act(`/api/schedules/${encodeURIComponent(each.name)}/run`) }, "Run now") : null],
  ] }));
  return section("Schedules", table("Recurring runs; times are those of your browser", ["Schedule", "State", "Next", "Last", person.signed_in ? "Now" : ""], rows));
}

function oneRun(run) {
  const became = run.batch_state ? `${run.batch_state} ${count(run.jobs.succeeded)} of ${count(run.jobs.total)}` : run.state;
  return el("span", { class: "line", key: run.due_at },
    `${moment(run.due_at)} `, run.batch_id ? link(`/batch/${encodeURIComponent(run.batch_id)}`, became) : became,
    run.cost_usd ? ` ${dollars(run.cost_usd)}` : "", run.reason ? el("span", { class: "under wrong" }, run.reason) : null);
}
