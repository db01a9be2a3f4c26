"""The limits as Prometheus metrics: the text that `promptmill limits --prometheus` prints, and a collector.

A collector has no state: it asks for the limits when it is scraped, so what is shown is never old.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from producers.limits_now import Backlog, LimitsNow
from promptmill import metrics
from promptmill.metrics import Metric

if TYPE_CHECKING:
    from promptmill.limits import PoolState

Sample = tuple[Metric, tuple[str, ...], float]
"""A metric, the values of its labels, its value."""


class LimitsCollector(Collector):
    """Fills in the metrics of the limits; register it with any registry."""

    def __init__(self, look: Callable[[], LimitsNow]) -> None:
        self._look = look

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The metrics without values, so that registering asks nobody."""
        return [_family(metric) for metric in metrics.LIMIT_METRICS]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The metrics as they stand now."""
        found: defaultdict[Metric, list[Sample]] = defaultdict(list)
        for sample in samples(self._look()):
            found[sample[0]].append(sample)
        for metric in metrics.LIMIT_METRICS:
            family = _family(metric)
            for _, labels, value in found[metric]:
                family.add_metric(labels, value)
            yield family


def exposition(now: LimitsNow) -> str:
    """The limits in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(LimitsCollector(lambda: now))
    return generate_latest(registry).decode()


def samples(now: LimitsNow) -> Iterator[Sample]:
    """Every figure with its metric and labels."""
    yield metrics.REACHABLE, (), float(now.silence is None)
    for state in now.pools:
        yield from _of_pool(state)
    if now.backlog is not None:
        yield from _of_backlog(now.backlog)
    for what, count in now.put_right.items():
        yield metrics.PUT_RIGHT, (what,), count


def _of_pool(state: "PoolState") -> Iterator[Sample]:
    pool = (state.pool.account, state.pool.group)
    yield metrics.IN_FLIGHT, pool, state.in_flight
    yield metrics.IN_LINE, pool, state.processes_waiting
    yield metrics.PAUSED, pool, state.paused_for
    yield metrics.SHARE, pool, state.share
    if state.held_by is not None:
        yield metrics.HELD, (*pool, state.held_by.value), 1.0
    for each in state.dimensions:
        labels = (*pool, each.dimension.value)
        yield metrics.USED, labels, each.used_per_minute
        if each.limit is not None:
            yield metrics.LIMIT, (*labels, each.source.value), each.limit
            yield metrics.LEVEL, labels, each.level
            yield metrics.CAPACITY, labels, each.capacity
            yield metrics.FOREIGN, labels, each.foreign
            yield metrics.PACE, labels, each.pace


def _of_backlog(backlog: Backlog) -> Iterator[Sample]:
    yield metrics.WORKERS, (), backlog.workers
    for group in dict.fromkeys(each.model_group for each in backlog.jobs):
        jobs = backlog.of_group(group)
        yield metrics.JOBS, (group, "pending"), sum(each.pending for each in jobs)
        yield metrics.JOBS, (group, "queued"), sum(each.queued for each in jobs)


def _family(metric: Metric) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
