"""When a consumer counts as deaf, a main thread as hanging, and when neither."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from promptmill.broker import celery_app
from promptmill.routes import ANSWER_QUEUE
from workers.consumer import Consumer
from workers.watchdog import Diagnosis, Judge, Signs, Watchdog

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


@dataclass
class Ill:
    """A process that falls ill, and what its watchdog does about it."""

    free: bool = True
    turning: bool = True
    on_hand: int = 0
    turns: int = 0
    acts: list[str] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)

    def signs(self) -> Signs:
        self.turns += self.turning
        return Signs(self.turns, 0, free=self.free, waiting=True)

    def abandon(self) -> None:
        self.acts.append("abandon")
        raise RuntimeError("the loop is closed")

    def leave(self, _code: int) -> None:
        self.acts.append("leave")
        self.left.set()

    def watched(self, **settings: Any) -> Watchdog:
        facts: dict[str, Any] = {
            "judge": Judge(deaf_after=0.1, hung_after=0.3),
            "restart": lambda: self.acts.append("restart"),
            "end": lambda: self.acts.append("end"),
            "longest_call": 3600.0,
            "look_every": 0.01,
        }
        return Watchdog(
            signs=self.signs,
            abandon=self.abandon,
            on_hand=lambda: self.on_hand,
            leave=self.leave,
            **(facts | settings),
        )


def test_a_process_that_hangs_ends_even_if_its_last_acts_fail() -> None:
    ill = Ill(turning=False)
    watchdog = ill.watched(judge=Judge(deaf_after=3600, hung_after=0.1))
    watchdog.start()
    assert ill.left.wait(30)
    watchdog.stand_down()
    assert ill.acts[:2] == ["abandon", "leave"]


def test_a_process_that_hangs_ends_even_if_its_last_acts_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.watchdog.LAST_ACTS_S", 0.1)
    ill, forever = Ill(turning=False), threading.Event()
    watchdog = ill.watched(judge=Judge(deaf_after=3600, hung_after=0.1), end=forever.wait)
    watchdog.abandon = forever.wait
    watchdog.start()
    assert ill.left.wait(30)
    watchdog.stand_down()
    forever.set()


def test_where_a_drain_stands_still_the_process_is_ended_without_it() -> None:
    ill = Ill()
    watchdog = ill.watched(end=lambda: (ill.acts.append("end"), watchdog.stand_down()))
    watchdog.start()
    assert ill.left.wait(30)
    assert ill.acts == ["restart", "restart", "end", "abandon", "leave"]


def test_a_drain_that_has_calls_in_flight_gets_their_time(wait_until: Callable[..., None]) -> None:
    ill = Ill(on_hand=3)
    watchdog = ill.watched(end=lambda: (ill.acts.append("end"), watchdog.stand_down()))
    watchdog.start()
    wait_until(lambda: "end" in ill.acts)
    assert not ill.left.wait(0.6)  # twice as long as nothing may move without a call
    ill.on_hand = 0
    assert ill.left.wait(30)


def test_a_worker_that_was_told_to_take_no_jobs_is_not_deaf() -> None:
    consumer = object.__new__(Consumer)
    consumer.app = celery_app("memory://")
    assert consumer.is_subscribed
    consumer.app.amqp.queues.deselect(ANSWER_QUEUE)  # what Flower's "cancel consumer" does
    assert not consumer.is_subscribed
