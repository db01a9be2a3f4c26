"""The metrics that the database knows: jobs, attempts, tokens, cost, batches, how long calls take.

The idea: a counter has its name and labels written out as one text, its series; the sums go by these to where they are
kept from going back, and come again as counters.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from promptmill import metrics
from promptmill.metrics import METRICS, Metric
from promptmill.states import TERMINAL_JOB_STATES, BatchState
from promptmill.store import totals, workers
from promptmill.store.database import Database, database_now
from promptmill.store.totals import ModelTotals, ScheduleTimes, ServedBatch, Totals
from promptmill.store.workers import WorkerRow

Found = tuple[Metric, tuple[str, ...], float]
"""A metric, the values of its labels, its value."""

PERCENTILES = (50, 90, 99)
NANOS = 10**9
_BY_NAME = {metric.name: metric for metric in METRICS}
_IN_NANOS = frozenset({metrics.COST})
_KINDS = ("input", "output", "cache_write", "cache_read")


@dataclass(frozen=True, slots=True)
class Figures:
    """What one look at the database tells."""

    totals: Totals
    served: Sequence[ServedBatch]
    calls: Mapping[str, Sequence[float]]
    workers: Sequence[WorkerRow]
    schedules: Sequence[ScheduleTimes]

    @classmethod
    def nothing(cls) -> "Figures":
        """Of a database that nobody has made yet."""
        return cls(Totals((), {}, {}, {}), (), {}, (), ())


def figures(database: Database) -> Figures:
    """One look.

    Raises:
        Unavailable: the database does not answer.
    """
    with database.read() as connection:
        now = database_now(connection)
        return Figures(
            totals=totals.totals(connection),
            served=totals.served(connection),
            calls=totals.latest_calls(connection, now),
            workers=_one_a_name(workers.live(connection, now)),
            schedules=totals.schedules(connection),
        )


def sums_of(figures: Figures) -> dict[str, int]:
    """What is shown as counters, by series; money in nano-dollars."""
    found: dict[str, int] = {}
    for metric, labels, value in _sums(figures.totals):
        found[json.dumps([metric.name, *labels])] = value
    return found


def of_figures(figures: Figures, counters: Mapping[str, int] | None) -> Iterator[Found]:
    """Every figure with its metric and labels; no counters where they are not known."""
    for series, value in (counters or {}).items():
        name, *labels = json.loads(series)
        metric = _BY_NAME.get(name)
        if metric is not None and len(labels) == len(metric.labels):  # else of another version
            yield metric, tuple(labels), value / NANOS if metric in _IN_NANOS else value
    yield from _of_totals(figures.totals)
    for batch in figures.served:
        yield from _of_batch(batch)
    for group, seconds in figures.calls.items():
        for percentile in PERCENTILES:
            yield metrics.CALL_SECONDS, (group, str(percentile)), _percentile(seconds, percentile)
    for worker in figures.workers:
        yield metrics.SLOTS, (name_of(worker),), worker.slots
        yield metrics.CALLS, (name_of(worker),), worker.running
    for schedule in figures.schedules:
        yield from _of_schedule(schedule)


def name_of(worker: WorkerRow) -> str:
    """What a worker is called in labels: an id would tell nobody where to look."""
    return f"{worker.host}/{worker.pid}"


def _one_a_name(rows: Sequence[WorkerRow]) -> Sequence[WorkerRow]:
    """The newest of each name: where a worker was killed and started anew, both count as alive for some seconds."""
    return tuple({name_of(row): row for row in sorted(rows, key=lambda row: row.started_at)}.values())


def _sums(totals: Totals) -> Iterator[tuple[Metric, tuple[str, ...], int]]:
    for state in sorted(TERMINAL_JOB_STATES):
        yield metrics.ENDED, (state.value,), totals.jobs[state]
    for each in totals.models:
        model = _labels(each)
        yield metrics.ATTEMPTS, model, each.attempts
        yield metrics.COST, model, each.cost_nanos
        for kind in _KINDS:
            yield metrics.TOKENS, (kind, *model), getattr(each, f"{kind}_tokens")
    for outcome, number in totals.failed_attempts.items():
        yield metrics.FAILED_ATTEMPTS, (outcome,), number


def _of_totals(totals: Totals) -> Iterator[Found]:
    for state, number in totals.jobs.items():
        yield metrics.ALL_JOBS, (state.value,), number
    for batch_state in BatchState:
        yield metrics.BATCHES, (batch_state.value,), totals.batches.get(batch_state, 0)
    for each in totals.models:
        yield metrics.RESERVED, _labels(each), each.reserved_nanos / NANOS
        yield metrics.UNPRICED, _labels(each), each.unpriced_attempts


def _of_batch(batch: ServedBatch) -> Iterable[Found]:
    for state, number in batch.jobs.items():
        yield metrics.BATCH_JOBS, (batch.name, state.value), number
    yield metrics.BATCH_COST, (batch.name,), batch.cost_nanos / NANOS
    if batch.budget_nanos is not None:
        yield metrics.BATCH_BUDGET, (batch.name,), batch.budget_nanos / NANOS
    if batch.paused_by is not None:
        yield metrics.BATCH_PAUSED, (batch.name, batch.paused_by), 1.0


def _of_schedule(schedule: ScheduleTimes) -> Iterator[Found]:
    if schedule.next_due is not None:
        yield metrics.NEXT_DUE, (schedule.name,), schedule.next_due.timestamp()
    if schedule.last_due is not None:
        labels = (schedule.name, schedule.last_state or "")
        yield metrics.LAST_DUE, labels, schedule.last_due.timestamp()


def _labels(each: ModelTotals) -> tuple[str, str]:
    return each.model, str(each.simulated).lower()


def _percentile(rising: Sequence[float], percentile: int) -> float:
    """The smallest that so many of a hundred do not exceed."""
    return rising[max(0, -(-len(rising) * percentile // 100) - 1)]
