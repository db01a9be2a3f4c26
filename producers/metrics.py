"""Every Prometheus metric of an installation, from one place: the database and Redis, whoever asks.

The idea: nothing is counted for metrics. What is shown are figures that are kept anyway, so several may show them, and
whoever was restarted shows the same; a scrape costs the workers nothing.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

import promptmill
from producers import limits_metrics
from producers.ascending import Ascending
from producers.limits_now import BacklogReader, look
from producers.limits_reader import PAUSE_S, LimitsReader
from producers.metrics_database import Figures, Found, figures, of_figures, sums_of
from producers.metrics_redis import of_redis
from producers.redis_address import with_running_redis
from promptmill import metrics
from promptmill.errors import PromptmillError
from promptmill.metrics import Metric
from promptmill.runtime import open_database
from promptmill.settings import Settings, load
from promptmill.store.database import Database

if TYPE_CHECKING:
    from redis import Redis

KEEP_S: Final = 1.0
"""Who asks again within so many seconds is told the same: a scrape may be as frequent as anybody likes."""
REDIS_PATIENCE_S: Final = 2.0


def exposition(settings: Settings | None = None) -> bytes:
    """All metrics in Prometheus' text format, now. Who is asked again and again keeps a `MetricsReader`."""
    with MetricsReader(settings) as reader:
        return reader.exposition()


class MetricsReader:
    """Shows the metrics again and again; any thread may ask. Close it at the end.

    What cannot be asked is missing, and `promptmill_database_reachable` and `promptmill_limiter_reachable` say so.
    """

    def __init__(
        self, settings: Settings | None = None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings or load()
        self._monotonic = monotonic
        self._resources = ExitStack()
        self._limits = self._resources.enter_context(LimitsReader(self._settings))
        self._backlog = self._resources.enter_context(BacklogReader(self._settings))
        self._database: Database | None = None
        self._away_until = float("-inf")
        self._ascending = Ascending()
        self._lock = threading.Lock()
        self._shown: tuple[float, bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of database and Redis."""
        with self._lock:
            self._resources.close()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format; at most a second old. It may wait for a server, up to seconds."""
        with self._lock:
            now = self._monotonic()
            if self._shown is None or now - self._shown[0] >= KEEP_S:
                self._shown = (now, _written(self._found()))
            return self._shown[1]

    def _found(self) -> Iterable[Found]:
        limits = look(self._limits, self._backlog, self._settings)
        found = list(limits_metrics.samples(limits))
        found.append((metrics.BUILD, (promptmill.__version__,), 1.0))
        settings = with_running_redis(self._settings)
        # Who has just been waited for in vain is not waited for again in the same scrape.
        with _redis(settings.redis_url if limits.silence is None else None) as redis:
            seen = self._ask_database(redis)
            found.append((metrics.DATABASE_REACHABLE, (), float(seen is not None)))
            if seen is not None:
                figures, counters = seen
                found += of_figures(figures, counters)
                found += of_redis(redis, settings, figures.workers)
        return found

    def _ask_database(self, redis: "Redis | None") -> tuple[Figures, dict[str, int] | None] | None:
        scheme, _, path = self._settings.effective_database_url.partition(":///")
        if scheme.startswith("sqlite") and not Path(path).exists():
            return Figures.nothing(), {}
        if self._monotonic() < self._away_until:
            return None
        latest = Figures.nothing()

        def sums() -> dict[str, int]:
            nonlocal latest
            latest = figures(self._opened())
            return sums_of(latest)

        try:
            counters = self._ascending.look(redis, sums)
            if counters is None:
                sums()
        except PromptmillError:
            self._away_until = self._monotonic() + PAUSE_S
            return None
        return latest, counters

    def _opened(self) -> Database:
        self._database = self._database or self._resources.enter_context(open_database(self._settings))
        return self._database


class _Ready(Collector):
    def __init__(self, found: Iterable[Found]) -> None:
        self._found = found

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        by_metric: defaultdict[Metric, list[Found]] = defaultdict(list)
        for each in self._found:
            by_metric[each[0]].append(each)
        for metric in metrics.METRICS:
            if metric in by_metric:
                yield _family(metric, by_metric[metric])


def _family(metric: Metric, found: Iterable[Found]) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if metric.is_counter else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for _, labels, value in found:
        family.add_metric(labels, value)
    return family


def _written(found: Iterable[Found]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Ready(found))
    return generate_latest(registry)


@contextmanager
def _redis(url: str | None) -> "Iterator[Redis | None]":
    """A Redis that may not answer; None where there is none."""
    from redis import Redis  # noqa: PLC0415  # 0.25 s that most commands do not need
    from redis.backoff import NoBackoff  # noqa: PLC0415  # likewise
    from redis.retry import Retry  # noqa: PLC0415  # likewise

    if url is None:
        yield None
        return
    patience = {"socket_timeout": REDIS_PATIENCE_S, "socket_connect_timeout": REDIS_PATIENCE_S}
    with Redis.from_url(url, retry=Retry(NoBackoff(), 0), **patience) as redis:
        yield redis
