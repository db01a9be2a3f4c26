"""What workers do by themselves: tell of the end, keep texts encrypted, delete what is kept too long."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import producers
from promptmill.clock import SystemClock
from promptmill.encryption import SEALED, id_of, new_key
from promptmill.errors import NotFound
from promptmill.settings import load
from promptmill.states import BatchState, PausedBy
from promptmill.store import control
from promptmill.store.purging import Part, gone
from promptmill.testing import simulated_claude

pytestmark = pytest.mark.timeout(120)

PROMPT = "a prompt that only the database knows"


@pytest.fixture
def receiver() -> Iterator[Any]:
    """A server that remembers what it was told, as `heard`: (headers, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name is the library's
            body = self.rfile.read(int(self.headers["content-length"]))
            self.server.heard.append((dict(self.headers), body))  # type: ignore[attr-defined]  # see below
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.heard = []  # type: ignore[attr-defined]  # read by the handler and by the test
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_end_is_told_texts_are_encrypted_and_old_answers_go_by_themselves(
    start_mill: Callable[..., Any], database_url: str, receiver: Any, tmp_path: Path
) -> None:
    keys, place = tmp_path / "keys", f"127.0.0.1:{receiver.server_port}"
    keys.write_text(key := new_key())
    own = {
        "PROMPTMILL_ENCRYPTION_KEYS_FILE": str(keys),
        "PROMPTMILL_WEBHOOK_ALLOW": place,
        "PROMPTMILL_WEBHOOK_SECRET": "hush-hush-hush-hush-hush-hush",
    }
    with simulated_claude() as claude:
        mill = start_mill(database_url, claude, quick=True, **own)
        settings = load(environ=mill.environment)
        batch = producers.submit(
            [PROMPT, "2"], model="claude-haiku-5-5", notify=f"http://{place}/hook", settings=settings
        )
        worker = mill.start_worker()
        mill.wait_until(lambda: receiver.heard, timeout=60)
        ((headers, body),) = receiver.heard
        told = json.loads(body)
        assert (told["type"], told["data"]["jobs"]["succeeded"]) == ("batch.ended", 2)
        assert headers["webhook-signature"].startswith("v1,")
        answers = [result.text for result in batch.results()]
        assert all(answers)
        worker.terminate()
        assert worker.wait(60) == 0
        mill.start_worker(PROMPTMILL_RETENTION__ANSWERS_DAYS="0")
        mill.wait_until(lambda: gone(batch.status().batch.options) == {Part.ANSWERS}, timeout=30)
        mill.wait_until(lambda: batch.status().batch.purged_at, timeout=30)
    with pytest.raises(NotFound, match=r"the answers of .* were purged"):
        list(batch.results())
    assert batch.audit().ok
    logs = mill.logs()
    assert [word for word in (PROMPT, key, "/hook", "hush-hush", *map(str, answers)) if word in logs] == []
    assert "notice_sent" not in logs  # it is no warning


def test_a_worker_without_the_key_ends_with_a_sentence_before_it_does_anything(
    start_mill: Callable[..., Any], sqlite_url: str, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(new_key())
    own = {"PROMPTMILL_ENCRYPTION_KEYS_FILE": str(tmp_path / "keys")}
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude, quick=True)
        producers.submit(["1"], model="claude-haiku-5-5", settings=load(environ={**mill.environment, **own}))
        worker = mill.start_worker()
        assert worker.wait(60) != 0
    assert "the texts in this database are encrypted and no key is given" in mill.logs()
    assert SEALED not in mill.logs()


def test_a_batch_whose_key_no_worker_has_rests_until_one_comes_that_has_it(
    start_mill: Callable[..., Any], sqlite_url: str, tmp_path: Path
) -> None:
    old, new = new_key(), new_key()
    files = {name: tmp_path / name for name in ("old", "new", "both")}
    for name, keys in (("old", [old]), ("new", [new]), ("both", [new, old])):
        files[name].write_text("\n".join(keys))

    def having(name: str) -> dict[str, str]:
        return {"PROMPTMILL_ENCRYPTION_KEYS_FILE": str(files[name])}

    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude, quick=True)
        lost, readable = (
            producers.submit(
                ["1", name], model="claude-haiku-5-5", settings=load(environ=mill.environment | having(name))
            )
            for name in ("old", "both")
        )

        def stands(state: BatchState) -> bool:
            return mill.status(lost.id).batch.state is state

        mill.start_worker(**having("new"))
        mill.wait_for_end(readable.id)
        mill.wait_until(lambda: stands(BatchState.PAUSED), timeout=30)
        row = mill.status(lost.id).batch
        assert row.paused_by is PausedBy.ENCRYPTION
        assert row.reason == f"encrypted with key {id_of(old)}, which no worker has"
        with mill.database.begin() as connection:
            control.resume(connection, lost.id, SystemClock().now())
        mill.wait_until(lambda: stands(BatchState.PAUSED), timeout=30)
        mill.start_worker(**having("both"))
        ended = mill.wait_for_end(lost.id).batch
    assert (ended.succeeded, ended.attempts) == (2, 2)
