"""What the page tells while the database is away, and what of a batch it tells at all."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from producers.dashboard import figures as seeing
from producers.dashboard import health
from producers.dashboard.access import Access
from producers.dashboard.app import make_app
from producers.dashboard.figures import Figures
from promptmill.errors import Unavailable
from promptmill.settings import Settings
from promptmill.store import Connection, control
from promptmill.store.database import Database, database_now
from promptmill.testing import a_batch, a_prompt

PROMPT = "the prompt that no page may show"


class Away(Database):
    """A database that went."""

    def __init__(self) -> None:
        pass

    @contextmanager
    def read(self) -> Iterator[Connection]:
        raise Unavailable("the database at postgresql://db: it is restarting")
        yield

    def close(self) -> None:
        pass


@pytest.fixture
def figures(tmp_path: Path) -> Iterator[Figures]:
    with Figures(Settings(home=tmp_path / "home")) as figures:
        a_batch(figures._database, [a_prompt(PROMPT)], name="mine")
        yield figures


def test_what_was_seen_last_stays_and_a_sentence_says_why(figures: Figures) -> None:
    before = figures.look()
    figures._database = Away()

    seen = figures.look(["mine"])

    assert before.overview["silence"] is None
    assert seen.overview["silence"] == "the database at postgresql://db: it is restarting"
    assert seen.overview["at"] == before.overview["at"]
    assert [each["name"] for each in seen.overview["batches"]] == ["mine"]


def test_a_batch_is_found_by_name_and_id_and_told_without_its_prompts(figures: Figures) -> None:
    [entry] = figures.look().overview["batches"]

    seen = figures.look(["mine", entry["batch_id"], "other"])

    assert seen.batches["mine"]["jobs"]["total"] == 1
    assert seen.batches[entry["batch_id"]] == seen.batches["mine"]
    assert seen.batches["other"] == {"error": "there is no batch 'other'"}
    assert PROMPT not in repr(seen)


async def test_it_is_sick_while_the_database_is_away_and_well_again_after(
    figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "KEEP_S", 0.0)
    database = figures._database
    async with TestClient(TestServer(make_app(Access("127.0.0.1"), figures, lambda: b""))) as client:
        assert (await client.get("/healthz")).status == 200
        figures._database = Away()

        sick = await client.get("/healthz")
        asked = await client.get("/api/batches/mine")
        figures._database = database

        assert sick.status == 503
        assert "postgresql" not in await sick.text()
        assert asked.status == 503
        assert "restarting" in (await asked.json())["error"]
        assert (await client.get("/healthz")).status == 200


async def test_who_asks_often_whether_it_is_well_costs_one_question_a_second() -> None:
    asked: list[int] = []
    now = 0.0
    well = health.Health(lambda: asked.append(1), lambda: now)

    assert all(await asyncio.gather(*(well.is_well() for _ in range(50))))
    assert len(asked) == 1
    now = health.KEEP_S
    assert await well.is_well()
    assert len(asked) == 2


def test_one_that_is_paused_is_listed_however_old_and_the_rest_is_counted(
    figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeing, "NEWEST", 1)
    monkeypatch.setattr(seeing, "UNFINISHED", 3)
    database = figures._database
    [old] = figures.look().overview["batches"]
    with database.begin() as connection:
        control.pause(connection, old["batch_id"], "paused by a person", database_now(connection))
    for name in ("second", "third"):
        a_batch(database, 4, name=name)

    listed = figures.look().overview
    a_batch(database, 1, name="fourth")
    more = figures.look().overview

    assert [(each["name"], each["state"]) for each in listed["batches"]] == [
        ("third", "active"),
        ("second", "active"),
        ("mine", "paused"),
    ]
    assert (listed["more"], listed["jobs_left"]) == (0, 9)
    assert [each["name"] for each in more["batches"]] == ["fourth", "third", "second"]
    assert (more["more"], more["jobs_left"]) == (1, 10)
