"""The limits as Prometheus metrics."""

from prometheus_client.parser import text_string_to_metric_families

from producers.limits_metrics import exposition
from producers.limits_now import Backlog, LimitsNow
from promptmill.dimensions import DIMENSIONS, Amounts
from promptmill.limits import DimensionState, Hindrance, LimitSource, Pool, PoolState
from promptmill.metrics import LIMIT_METRICS, METRICS
from promptmill.store.backlog import WaitingJobs

GROUP = "claude-haiku-5-5"


def moment() -> LimitsNow:
    dimensions = tuple(
        DimensionState(dimension, limit, LimitSource.CONFIGURED, 5.0, 10.0, 1.0, 3.0, 7.0, 42.0)
        for dimension, limit in zip(DIMENSIONS, (60.0, None, 8000.0), strict=True)
    )
    state = PoolState(
        Pool('odd "account"\n', GROUP), dimensions, 3, 1.5, 0, 2, 0.5, Amounts(1, 1, 1), 0.5, 1.0, Hindrance.PAUSED
    )  # fmt: skip
    waiting = WaitingJobs(batch_id="b", batch_name="b", model_group=GROUP, pending=7, queued=2, running=1)
    return LimitsNow((state,), None, (), Backlog((waiting,), workers=4), {"ids_lost_by_the_broker": 2})


def samples(now: LimitsNow) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(exposition(now))
    return {
        (
            each.name,
            each.labels.get("dimension") or each.labels.get("state") or each.labels.get("by", ""),
        ): each.value
        for family in families
        for each in family.samples
    }


def test_every_figure_is_there_under_its_name() -> None:
    found = samples(moment())

    assert found["promptmill_limit_per_minute", "requests"] == 60
    assert found["promptmill_limit_used_per_minute", "input_tokens"] == 42
    assert found["promptmill_pool_paused_seconds", ""] == 1.5
    assert found["promptmill_pool_held", "paused"] == 1
    assert found["promptmill_jobs_waiting", "pending"] == 7
    assert found["promptmill_workers", ""] == 4
    assert found["promptmill_put_right", ""] == 2
    assert found["promptmill_limiter_reachable", ""] == 1


def test_where_there_is_no_limit_there_is_no_series_of_it() -> None:
    assert ("promptmill_limit_per_minute", "input_tokens") not in samples(moment())


def test_labels_are_those_that_were_promised() -> None:
    labels = {
        each.name: set(each.labels)
        for family in text_string_to_metric_families(exposition(moment()))
        for each in family.samples
    }

    assert labels == {metric.name: set(metric.labels) for metric in LIMIT_METRICS}


def test_while_redis_is_away_only_that_is_said() -> None:
    assert samples(LimitsNow((), "nothing runs", (), None)) == {("promptmill_limiter_reachable", ""): 0}


def test_every_metric_has_its_unit_and_its_line() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all(metric.unit and metric.help.endswith(".") for metric in METRICS)
