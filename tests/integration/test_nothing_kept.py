"""What a job brought along is let go once its end is stored: a process in which thousands are in flight holds no more.

Garbage collection is off in these tests: a worker's comes seldom, so nothing may wait for it.
"""

import asyncio
import contextlib
import gc
import json
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial

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
from workers.verdicts import Deferred, Failed
from workers.without_key import WithoutKey
from workers.writer import Writer

KEY = Key(label="main", secret=SecretStr("sk"), account="account")
PROMPT, ANSWER = (f"{word} {secrets.token_hex(8)}" for word in ("CANARY prompt", "CANARY answer"))
"""Made anew for each process: `linecache` keeps this file's own lines once anything has printed a traceback of it."""
JOBS = 20

Answer = Callable[[], bytes]
"""Made for each request anew, so that none is there in between."""
Start = Callable[[Answer], Awaitable[str]]


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    """An open, migrated database."""
    database = Database.open(sqlite_url)
    yield database
    database.close()


@pytest.fixture
def no_collection() -> Iterator[None]:
    """No garbage collection, only counts of references; what is there already is left out of `gc.get_objects`.

    In a process that has run two thousand tests it is so much that one look takes ten seconds.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


@pytest.fixture
async def claude() -> AsyncIterator[Start]:
    """Start a server that gives every request one answer, or none and hangs up, and keeps nothing itself, unlike aiohttp's."""
    servers = []

    async def start(answer: Answer) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
                    if not (text := answer()):
                        break
                    writer.write(text)
                    del text  # while it waits for the next request
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


def _message() -> bytes:
    content, usage = [{"type": "text", "text": f"{ANSWER} 4"}], {"input_tokens": 1, "output_tokens": 1}
    return _http("200 OK", {"type": "message", "model": MODEL, "content": content, "usage": usage})


def _refusal(status: str, kind: str) -> bytes:
    return _http(status, {"type": "error", "error": {"type": kind, "message": "no"}})


def _http(status: str, value: object) -> bytes:
    body = json.dumps(value)
    return f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


NO_LIMITS = Ceilings(0, 0, 0)


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("answer", "ceilings", "states"),
    [
        pytest.param(_message, NO_LIMITS, {"succeeded"}, id="answered"),
        pytest.param(partial(_refusal, "429 Slow", "rate_limit_error"), NO_LIMITS, {"pending"}, id="429"),
        pytest.param(partial(_refusal, "529 Full", "overloaded_error"), NO_LIMITS, {"pending"}, id="529"),
        pytest.param(
            partial(_refusal, "400 Bad", "invalid_request_error"), NO_LIMITS, {"errored"}, id="failed"
        ),
        pytest.param(bytes, NO_LIMITS, {"pending"}, id="dropped"),
        pytest.param(None, NO_LIMITS, {"pending"}, id="refused"),
        pytest.param(_message, Ceilings(1, 0, 0), {"pending"}, id="put back for want of room"),
    ],
)
async def test_prompts_and_answers_are_not_kept_after_their_write(
    *,
    database: Database,
    claude: Start,
    answer: Answer | None,
    ceilings: Ceilings,
    states: set[str],
) -> None:
    ids = _queued(database)
    writer = Writer(database.begin, store_statements("worker", SystemClock()), prepare=lock_jobs)
    writer.start()
    async with ClaudeClient(
        base_url="http://127.0.0.1:1" if answer is None else await claude(answer)
    ) as client:
        pipeline = _pipeline(writer, client, ceilings)
        await asyncio.gather(*(_to_its_end(pipeline, job_id, dispatch) for job_id, dispatch in ids))
        with database.read() as connection:
            stored = jobs.load(connection, [job_id for job_id, _ in ids]).values()
            assert {str(job.state) for job in stored} == states
        del stored
        async with asyncio.timeout(10):
            while _holders_of(PROMPT, ANSWER):  # noqa: ASYNC110  # the writer's thread is a moment behind, and says nothing
                await asyncio.sleep(0.05)
        gc.unfreeze()
        assert not _holders_of(PROMPT, ANSWER), "something that was there before has taken it up"
    writer.stop()


async def _to_its_end(pipeline: Pipeline, job_id: str, dispatch: int) -> None:
    with contextlib.suppress(Deferred, Failed):
        await pipeline.answer(job_id, dispatch)


def _queued(database: Database) -> list[tuple[str, int]]:
    batch = a_batch(database, [a_prompt(f"{PROMPT} {n}") for n in range(JOBS)])
    with database.begin() as connection:
        ids = [job.id for job in jobs.select_pending(connection, batch.id, MODEL, JOBS, SystemClock().now())]
        return [(job.job_id, job.dispatch) for job in jobs.queue(connection, ids, SystemClock().now())]


def _pipeline(writer: Writer, client: ClaudeClient, ceilings: Ceilings) -> Pipeline:
    keys, limiter = KeyRing([KEY]), LocalLimiter(ceilings=lambda _pool: ceilings)
    outcomes = Outcomes(
        writer=writer,
        prices=PriceBook(),
        policy=RetryPolicy(),
        clock=SystemClock(),
        rng=random.Random(1),
        keys=keys,
        without_key=WithoutKey(keys, SystemClock(), pause=lambda _held: None),
    )
    return Pipeline(
        outcomes=outcomes,
        limiter=limiter,
        client=client,
        accounts=Accounts(keys, lambda: None, limiter.peek),
        estimator=Estimator(),
        meet=_meet,
        serves=lambda _job: True,
        patience=0.0,
    )


async def _meet(_job: LoadedJob) -> None:
    """Nothing is known of any batch."""


def _holders_of(*words: str) -> list[str]:
    """The types of all objects that refer to a text with one of these words in it, other than code."""
    mine = {id(words), id(globals())}
    return [
        type(holder).__name__
        for holder in gc.get_objects()
        if id(holder) not in mine and type(holder).__name__ not in ("code", "function")
        for held in gc.get_referents(holder)
        if (type(held) is str and held not in words and any(word in held for word in words))
        or (type(held) is bytes and any(word.encode() in held for word in words))
    ]
