"""What the page tells while the database is away, and what of a batch it tells at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from producers.dashboard.access import Access
from producers.dashboard.app import make_app
from producers.dashboard.figures import Figures
from promptmill.errors import Unavailable
from promptmill.settings import Settings
from promptmill.store import Connection
from promptmill.store.database import Database
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


async def test_it_is_sick_while_the_database_is_away_and_well_again_after(figures: Figures) -> None:
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
