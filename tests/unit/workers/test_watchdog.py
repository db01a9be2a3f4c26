"""When a consumer counts as deaf, a main thread as hanging, and when neither."""

from collections.abc import Callable

import pytest

from workers.watchdog import Diagnosis, Judge, Signs

Look = Callable[..., Diagnosis]


@pytest.fixture
def look() -> Look:
    """One look a second; `look(taken=…)` overrides a sign of a consumer that is well and idle, `times` repeats it."""
    judge = Judge(deaf_after=3, hung_after=5)
    moment = {"now": 0, "turns": 0}

    def once(
        pause: int = 1,
        *,
        turning: bool = True,
        taken: int = 0,
        free: bool = True,
        waiting: bool | None = True,
    ) -> Diagnosis:
        moment["now"] += pause
        moment["turns"] += turning
        return judge.judge(Signs(moment["turns"], taken, free, waiting), moment["now"])

    def look(times: int = 1, **signs: object) -> Diagnosis:
        found = [once(**signs) for _ in range(times)]  # type: ignore[arg-type]  # the signs of `once`
        return next((each for each in found if each is not Diagnosis.WELL), Diagnosis.WELL)

    return look


def test_messages_that_wait_beside_free_slots_mean_a_deaf_consumer(look: Look) -> None:
    assert look(3) is Diagnosis.WELL
    assert look() is Diagnosis.DEAF


@pytest.mark.parametrize("signs", [{"free": False}, {"waiting": False}, {"waiting": None}])
def test_full_slots_an_empty_queue_and_an_absent_redis_explain_it(
    look: Look, signs: dict[str, object]
) -> None:
    assert look(20, **signs) is Diagnosis.WELL


def test_a_message_now_and_then_is_enough(look: Look) -> None:
    assert [look(2, taken=count) for count in range(10)] == [Diagnosis.WELL] * 10


def test_the_third_time_in_a_row_is_hopeless(look: Look) -> None:
    assert [look(4), look(3), look(3)] == [Diagnosis.DEAF, Diagnosis.DEAF, Diagnosis.HOPELESS]


def test_a_restart_that_helped_is_forgotten(look: Look) -> None:
    assert [look(4), look(3), look(4, taken=1), look(3, taken=1)] == [Diagnosis.DEAF] * 4


def test_a_main_thread_that_stands_still_hangs(look: Look) -> None:
    look()
    assert look(4, turning=False, waiting=False) is Diagnosis.WELL
    assert look(turning=False, waiting=False) is Diagnosis.HUNG


def test_while_redis_is_away_and_for_a_while_after_nothing_hangs(look: Look) -> None:
    look()
    assert look(20, turning=False, waiting=None) is Diagnosis.WELL
    assert look(4, turning=False, waiting=False) is Diagnosis.WELL


def test_a_process_that_was_frozen_has_not_stood_still(look: Look) -> None:
    look(2)
    assert look(pause=3600, turning=False) is Diagnosis.WELL
    assert look(2, turning=False) is Diagnosis.WELL
