"""The writer: many small writes become few commits, and one bad one harms only itself."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import pytest

from promptmill.errors import Unavailable
from promptmill.store.jobs import Completion, Deferral
from workers.statements import size_of
from workers.writer import Write, Writer


class Ledger:
    """A database that counts its commits; `away` makes the next transactions fail, `poison` a value."""

    def __init__(self) -> None:
        self.commits: list[list[Any]] = []
        self.away = 0
        self.poison: Any = None

    @contextmanager
    def begin(self) -> Iterator[Any]:
        if self.away:
            self.away -= 1
            raise Unavailable("the database is away")
        rows: list[Any] = []
        yield rows
        self.commits.append(rows)

    def write(self, connection: Any, values: Sequence[Any]) -> list[Any]:
        if self.poison in values:
            raise ValueError("a bad row")
        connection.extend(values)
        return [value * 10 for value in values]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def idle(ledger: Ledger) -> Iterator[Writer]:
    """Not started yet: what is handed in now has gathered when it begins, however slow the machine is."""
    writer = Writer(ledger.begin, dict.fromkeys(Write, ledger.write), rows=100, delay=0.05)
    yield writer
    writer.stop()


@pytest.fixture
def writer(idle: Writer) -> Writer:
    idle.start()
    return idle


async def test_a_write_is_answered_after_its_commit(writer: Writer, ledger: Ledger) -> None:
    assert await writer.put(Write.BEGIN, 7) == 70
    assert ledger.commits == [[7]]


async def test_many_writes_share_few_commits(idle: Writer, ledger: Ledger) -> None:
    writes = asyncio.gather(*(idle.put(Write.COMPLETE, number) for number in range(250)))
    idle.start()
    assert await writes == [number * 10 for number in range(250)]
    assert [len(commit) for commit in ledger.commits] == [100, 100, 50]


async def test_writes_that_follow_each_other_soon_share_a_commit(ledger: Ledger) -> None:
    writer = Writer(ledger.begin, dict.fromkeys(Write, ledger.write), rows=3, delay=60)
    writer.start()
    assert await asyncio.gather(*(writer.put(Write.COMPLETE, number) for number in range(3))) == [0, 10, 20]
    writer.stop()
    assert ledger.commits == [[0, 1, 2]]


async def test_a_commit_takes_few_of_what_is_large(ledger: Ledger) -> None:
    writer = Writer(ledger.begin, dict.fromkeys(Write, ledger.write), delay=0.05, size=len, characters=1_000)
    writes = asyncio.gather(*(writer.put(Write.COMPLETE, ["x"] * size) for size in (600, 500, 1, 5_000, 1)))
    writer.start()
    await writes
    writer.stop()
    assert [[len(value) for value in commit] for commit in ledger.commits] == [[600, 500], [1, 5_000], [1]]


def test_a_write_is_as_large_as_its_answer() -> None:
    nothing: Any = dict.fromkeys(each.name for each in fields(Completion))
    blocks = [{"type": "text", "text": "x" * 900}, {"type": "tool_use", "input": {"rows": ["y" * 80]}}]
    completion = Completion(**nothing | {"message": {"content": blocks}, "text": "x" * 900})
    deferral = Deferral(job_id="job", not_before=None, kept=completion)
    assert size_of(completion) == size_of(deferral) == 988
    assert size_of(Deferral(job_id="job", not_before=None)) == 0


async def test_completions_are_written_before_new_jobs_begin(idle: Writer, ledger: Ledger) -> None:
    writes = asyncio.gather(idle.put(Write.BEGIN, 1), idle.put(Write.COMPLETE, 2))
    idle.start()
    await writes
    assert ledger.commits == [[2, 1]]


async def test_one_bad_row_harms_only_its_own_job(writer: Writer, ledger: Ledger) -> None:
    ledger.poison = 3
    answers = await asyncio.gather(
        *(writer.put(Write.COMPLETE, number) for number in range(6)), return_exceptions=True
    )
    assert isinstance(answers[3], ValueError)
    assert [answer for answer in answers if not isinstance(answer, ValueError)] == [0, 10, 20, 40, 50]


async def test_a_database_that_is_away_is_waited_for(writer: Writer, ledger: Ledger) -> None:
    ledger.away = 2
    assert await writer.put(Write.COMPLETE, 1) == 10


async def test_what_was_handed_in_is_written_even_when_nobody_waits_for_it(
    writer: Writer, ledger: Ledger
) -> None:
    writer.put(Write.COMPLETE, 5).cancel()
    await writer.put(Write.COMPLETE, 6)
    assert sorted(row for commit in ledger.commits for row in commit) == [5, 6]


async def test_stopping_writes_what_is_left(ledger: Ledger) -> None:
    writer = Writer(ledger.begin, dict.fromkeys(Write, ledger.write), rows=10, delay=10)
    writer.start()
    waiting = [writer.put(Write.COMPLETE, number) for number in range(3)]
    await asyncio.to_thread(writer.stop)
    assert await asyncio.gather(*waiting) == [0, 10, 20]
