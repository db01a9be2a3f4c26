"""Counters that never go back, whatever becomes of the sums they are made of."""

from collections.abc import Callable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from producers.ascending import Ascending, Kept, carried
from promptmill.routes import COUNTERS


def fixed(**sums: int) -> Callable[[], dict[str, int]]:
    return lambda: dict(sums)


@given(st.lists(st.integers(0, 1000)))
def test_a_counter_never_goes_back_and_counts_every_rise(sums: list[int]) -> None:
    kept, shown = {"a": Kept(0)}, [0]
    for each in sums:
        kept = carried(kept, {"a": each})
        shown.append(kept["a"].value)

    rises = [max(0, later - earlier) for earlier, later in pairwise([0, *sums])]
    assert [later - earlier for earlier, later in pairwise(shown)] == rises


def test_a_counter_whose_sum_is_gone_stays_where_it_is() -> None:
    assert carried({"a": Kept(7)}, {})["a"].value == 7


def test_what_one_has_shown_another_goes_on_with(clean_redis: str) -> None:
    with Redis.from_url(clean_redis) as redis:
        Ascending().look(redis, fixed(cost=100))

        assert Ascending().look(redis, fixed(cost=90)) == {"cost": 100}
        assert Ascending().look(redis, fixed(cost=95)) == {"cost": 105}


def test_a_flushed_redis_is_filled_again_from_memory(clean_redis: str) -> None:
    ours = Ascending()
    with Redis.from_url(clean_redis) as redis:
        ours.look(redis, fixed(cost=100))
        ours.look(redis, fixed(cost=0))
        redis.flushall()

        assert ours.look(redis, fixed(cost=1)) == {"cost": 101}
        assert Ascending().look(redis, fixed(cost=1)) == {"cost": 101}


def test_without_redis_nothing_is_shown_that_might_seem_to_go_back(clean_redis: str) -> None:
    ours = Ascending()
    assert ours.look(None, fixed(cost=100)) is None

    with Redis.from_url(clean_redis) as redis:
        ours.look(redis, fixed(cost=100))
    assert ours.look(None, fixed(cost=50)) == {"cost": 100}


def test_of_two_that_look_at_once_the_older_sum_is_asked_for_anew(clean_redis: str) -> None:
    with Redis.from_url(clean_redis) as redis, Redis.from_url(clean_redis) as other:
        sums = iter([100, 130])

        def look() -> dict[str, int]:
            found = next(sums)
            if found == 100:
                Ascending().look(other, fixed(cost=120))
            return {"cost": found}

        assert Ascending().look(redis, look) == {"cost": 130}
        assert redis.hget(COUNTERS, "cost") == b"130 0"
