"""What a job brought along is let go once its answer is stored: a process in which thousands are in flight holds no more."""

import asyncio
import contextlib
import gc
import json
import random
from collections.abc import AsyncIterator, Iterator

import pytest
from pydantic import SecretStr

from promptmill.claude.client import ClaudeClient
from promptmill.claude.keys import Key, KeyRing
from promptmill.clock import SystemClock
from promptmill.estimates import Estimator
from promptmill.limits import Ceilings, LocalLimiter
from promptmill.pricing import PriceBook
from promptmill.retries import RetryPolicy
from promptmill.store import jobs
from promptmill.store.database import Database
from promptmill.store.jobs import LoadedJob
from promptmill.testing import MODEL, a_batch, a_prompt
from workers.accounts import Accounts
from workers.outcomes import Outcomes
from workers.pipeline import Pipeline
from workers.statements import lock_jobs, store_statements
from workers.writer import Writer

KEY = Key(label="main", secret=SecretStr("sk"), account="account")
PROMPT, ANSWER = "CANARY prompt", "CANARY answer"
JOBS = 20


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    """An open, migrated database."""
    database = Database.open(sqlite_url)
    yield database
    database.close()


@pytest.fixture
async def claude() -> AsyncIterator[str]:
    """A server in this process that answers at once and, unlike aiohttp's, keeps nothing itself; its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
                writer.write(_answer())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


def _answer() -> bytes:
    content, usage = [{"type": "text", "text": f"{ANSWER} 4"}], {"input_tokens": 1, "output_tokens": 1}
    body = json.dumps({"type": "message", "model": MODEL, "content": content, "usage": usage})
    return f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


async def test_prompts_and_answers_are_not_kept_after_their_write(database: Database, claude: str) -> None:
    ids = _queued(database)
    writer = Writer(database.begin, store_statements("worker", SystemClock()), prepare=lock_jobs)
    writer.start()
    async with ClaudeClient(base_url=claude) as client:
        pipeline = _pipeline(writer, client)
        await asyncio.gather(*(pipeline.answer(job_id, dispatch) for job_id, dispatch in ids))
        with database.read() as connection:
            stored = jobs.load(connection, [job_id for job_id, _ in ids]).values()
            assert [job.state for job in stored] == ["succeeded"] * JOBS
        del stored
        async with asyncio.timeout(10):
            while _holders_of(PROMPT, ANSWER):  # noqa: ASYNC110  # the writer's thread is a moment behind, and says nothing
                await asyncio.sleep(0.05)
    writer.stop()


def _queued(database: Database) -> list[tuple[str, int]]:
    batch = a_batch(database, [a_prompt(f"{PROMPT} {n}") for n in range(JOBS)])
    with database.begin() as connection:
        ids = [job.id for job in jobs.select_pending(connection, batch.id, MODEL, JOBS, SystemClock().now())]
        return [(job.job_id, job.dispatch) for job in jobs.queue(connection, ids, SystemClock().now())]


def _pipeline(writer: Writer, client: ClaudeClient) -> Pipeline:
    keys, limiter = KeyRing([KEY]), LocalLimiter(ceilings=lambda _pool: Ceilings(0, 0, 0))
    outcomes = Outcomes(
        writer=writer,
        prices=PriceBook(),
        policy=RetryPolicy(),
        clock=SystemClock(),
        rng=random.Random(1),
        keys=keys,
        pause=lambda _held: None,
    )
    return Pipeline(
        outcomes=outcomes,
        limiter=limiter,
        client=client,
        accounts=Accounts(keys, lambda: [KEY], limiter.peek),
        estimator=Estimator(),
        meet=_meet,
        serves=lambda _job: True,
    )


async def _meet(_job: LoadedJob) -> None:
    """Nothing is known of any batch."""


def _holders_of(*words: str) -> list[str]:
    """The types of all objects that refer to a text with one of these words in it, other than code."""
    gc.collect()
    mine = {id(words), id(globals())}
    return [
        type(holder).__name__
        for holder in gc.get_objects()
        if id(holder) not in mine and type(holder).__name__ not in ("code", "function")
        for held in gc.get_referents(holder)
        if (type(held) is str and held not in words and any(word in held for word in words))
        or (type(held) is bytes and any(word.encode() in held for word in words))
    ]
