"""Upkeep: notices and retention wait neither for each other nor hold up the end of a worker."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from promptmill.clock import SystemClock
from promptmill.errors import Unavailable
from promptmill.retention import Retention
from workers import upkeep
from workers.upkeep import Rounds, Upkeep


class Log:
    """SQLite's log, which somebody reads the first few times."""

    dialect = "sqlite"

    def __init__(self, readers: int = 0) -> None:
        self.readers = readers
        self.tries = 0

    def forget_log(self) -> bool:
        self.tries += 1
        return self.tries > self.readers


class Herald:
    def __init__(self, tell: Callable[[], object]) -> None:
        self.tell = tell


def kept_up(database: Any, tell: Callable[[], object] = lambda: 0) -> Upkeep:
    herald: Any = Herald(tell)
    return Upkeep(database, herald, Retention(), SystemClock())


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_receiver_that_does_not_answer_holds_up_neither_retention_nor_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upkeep, "_PATIENCE_S", 0.1)
    answers = threading.Event()
    database = Log()
    kept = kept_up(database, lambda: answers.wait(60))
    kept.poke()
    wait_until(lambda: database.tries)
    began = time.monotonic()
    kept.stop()
    assert time.monotonic() - began < 5
    assert all(each.daemon for each in threading.enumerate() if each.name == "promptmill-notices")
    answers.set()


def test_a_log_that_somebody_reads_is_tried_again_each_round_until_it_is_empty() -> None:
    database = Log(readers=2)
    kept = kept_up(database)
    for _ in range(6):
        kept.delete_now_and_then()
    assert database.tries == 3


def test_a_round_that_fails_is_followed_by_the_next() -> None:
    errors = iter([Unavailable("away"), ValueError("a row of somebody")])
    rounds: list[int] = []

    def act() -> None:
        rounds.append(1)
        if error := next(errors, None):
            raise error

    stopping = threading.Event()
    turning = Rounds("test", act, stopping)
    for number in range(1, 4):
        turning.poke()
        wait_until(lambda number=number: len(rounds) >= number)
    stopping.set()
    turning.join(5)
    assert not [each for each in threading.enumerate() if each.name == "promptmill-test"]
