"""The document that `promptmill limits --json` prints."""

from producers.limits_document import limits_document
from producers.limits_now import LimitsNow
from promptmill.dimensions import DIMENSIONS, Amounts
from promptmill.limits import DimensionState, LimitSource, Pool, PoolState


def moment() -> LimitsNow:
    dimensions = tuple(
        DimensionState(dimension, limit, source, 5.0, 10.0, burst, 3.0, 7.0, 42.0)
        for dimension, limit, source, burst in zip(
            DIMENSIONS,
            (60.0, None, 8000.0),
            (LimitSource.CONFIGURED, LimitSource.NONE, LimitSource.LEARNED),
            (1.52, -1.0, 137.26),
            strict=True,
        )
    )
    state = PoolState(
        Pool("default", "claude-haiku-5-5"), dimensions, 3, 0.0, 0, 2, 1.0, Amounts(1, 1, 1), 1.0, 1.0, None
    )
    return LimitsNow((state,), None, (), None)


def test_each_limit_states_the_burst_of_its_ceiling() -> None:
    [pool] = limits_document(moment())["pools"]

    assert {name: each["burst"] for name, each in pool["dimensions"].items()} == {
        "requests": 1.5,
        "input_tokens": None,
        "output_tokens": 137.3,
    }
