"""A judge that is not ours: llmock answers as Claude does, breaks on demand, and says what the client got wrong.

It takes two requests for one call when their bodies are the same. A scout is the same call as a stream, so its body
says one word more; so here every answer is streamed (they are long enough for that), or none is (`plain_worker`).
"""

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from promptmill.states import JobState
from promptmill.store import ledger
from promptmill.testing import a_batch, a_prompt
from tests.ports import free_port

Start = Callable[..., Any]
pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

STREAMED = 30_000  # max_tokens from which every answer is streamed
PLAIN = 100
RETRIED = {
    "busy": {"type": "fail", "status": 503},
    "broken": {"type": "fail", "status": 500},
    "gateway": {"type": "fail", "status": 502},
    "timeout": {"type": "fail", "status": 504},
    "asked-to-wait": {"type": "fail", "status": 503, "retry_after": 2},
    "overloaded": {"type": "fail", "status": 529},
    "overloaded-and-wait": {"type": "fail", "status": 529, "retry_after": 1.5},
    "over-the-limit": {"type": "fail", "status": 429, "retry_after": 1.5},
    "over-the-limit-thrice": {"type": "fail", "status": 429, "retry_after": 1, "times": 3},
    "four-in-a-row": {"type": "fail", "status": 500, "times": 4},
}
STREAM_FAULTS = {
    "disconnected": {"type": "stream_fault", "kind": "disconnect", "after_chunks": 2},
    "disconnected-at-once": {"type": "stream_fault", "kind": "disconnect", "after_chunks": 0},
    "truncated": {"type": "stream_fault", "kind": "truncate", "after_chunks": 3},
    "malformed-at-once": {"type": "stream_fault", "kind": "malformed", "after_chunks": 0},
    "malformed": {"type": "stream_fault", "kind": "malformed", "after_chunks": 3},
    "malformed-ping": {"type": "stream_fault", "kind": "malformed", "after_chunks": 2},
    "stalled": {"type": "stream_fault", "kind": "stall", "after_chunks": 2, "stall_seconds": 8},
}
REFUSED = {
    "invalid": {"type": "fail", "status": 400},
    "unprocessable": {"type": "fail", "status": 422},
    "not-found": {"type": "fail", "status": 404},
}


@dataclass(frozen=True)
class Judge:
    """A running llmock; `url` is what a Claude client calls."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/anthropic"

    def script(self, faults: dict[str, dict[str, Any]]) -> None:
        """Each fault meets the calls of one model."""
        behaviors = [{**fault, "match": {"model": f"claude-{name}"}} for name, fault in faults.items()]
        assert self._ask("POST", "scenario", {"behaviors": behaviors})["queued"] == len(faults)

    def calls(self) -> list[dict[str, Any]]:
        """Every request for an answer. (A worker also asks once whether a simulator is there.)"""
        requests = self._ask("GET", "requests")["requests"]
        return [request for request in requests if request["method"] == "POST"]

    def verdict(self) -> dict[str, Any]:
        return self._ask("GET", "verdict")

    def is_up(self) -> bool:
        try:
            return "passed" in self.verdict()
        except OSError:
            return False

    def _ask(self, method: str, name: str, body: object = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, f"/_llmock/{name}", None if body is None else json.dumps(body))
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()


@pytest.fixture
def judge(tmp_path: Path, wait_until: Callable[..., None]) -> Iterator[Judge]:
    beside = Path(sys.executable).with_name("llmock")
    program = str(beside) if beside.exists() else shutil.which("llmock")
    assert program, "llmock is one of the dev dependencies"
    port = free_port()
    with (tmp_path / "llmock.log").open("wb") as log:
        server = subprocess.Popen(
            # Slowly: a client that hangs up at a damaged event must be seen to, before all is sent anyway.
            [program, "serve", "--host", "127.0.0.1", "--port", str(port), "--stream-chunk-delay-ms", "50"],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    found = Judge(port)
    try:
        wait_until(found.is_up, timeout=30)
        yield found
    finally:
        server.terminate()
        server.wait()


@pytest.mark.parametrize(
    ("faults", "max_tokens", "app"),
    [
        (RETRIED | STREAM_FAULTS | REFUSED, STREAMED, "workers.app"),
        (RETRIED | REFUSED, PLAIN, "plain_worker"),
    ],
    ids=["streamed", "plain"],
)
def test_an_independent_judge_finds_nothing_to_report_warnings_included(  # noqa: PLR0917  # fixtures
    start_mill: Start,
    judge: Judge,
    database_url: str,
    faults: dict[str, dict[str, Any]],
    max_tokens: int,
    app: str,
) -> None:
    judge.script(faults)
    mill = start_mill(
        database_url,
        judge,
        ANTHROPIC_API_KEY="sk-judged",
        PROMPTMILL_CLAUDE__STREAM_IDLE_TIMEOUT_S="3",
        PYTHONPATH=str(Path(__file__).parent),
    )
    prompts = [a_prompt(model=f"claude-{name}", max_tokens=max_tokens) for name in faults]
    batch = a_batch(mill.database, prompts, endpoint=judge.url, simulated=False)
    mill.start_worker(app=app)
    status = mill.wait_for_end(batch.id, timeout=150)
    verdict = judge.verdict()
    assert verdict["findings"] == []
    assert verdict["faults_injected"] == sum(fault.get("times", 1) for fault in faults.values())
    assert status.jobs[JobState.ERRORED] == len(REFUSED)
    assert status.jobs[JobState.SUCCEEDED] == len(faults) - len(REFUSED)
    with mill.database.read() as connection:
        attempts = ledger.attempts_of(connection, batch_id=batch.id)
    assert len(attempts) == len(judge.calls())
