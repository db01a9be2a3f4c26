"""The keys of a worker follow their files, commands and functions; the files are real ones."""

import json
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from promptmill.claude.keys import Key, KeyRing, declared_keys
from promptmill.clock import SystemClock
from promptmill.errors import ConfigurationError, NoUsableKey
from workers import key_watch
from workers.key_watch import KeyWatch, apart

GROUP = "claude-sonnet-5"
Watch = Callable[[], Awaitable[KeyWatch]]
Until = Callable[..., Awaitable[None]]


class LaterClock(SystemClock):
    """The real one, set on by hand: what a token's life takes is not waited for."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


class Place:
    """A file of keys, and what was said to go on."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "keys.toml"
        self.clock = LaterClock()
        self.gone_on = 0

    def write(self, text: str) -> None:
        beside = self.file.with_suffix(".new")
        beside.write_text(text)
        beside.chmod(0o600)
        beside.replace(self.file)

    def key(self, secret: str, label: str = "main") -> None:
        self.write(f'[[key]]\nlabel = "{label}"\nkey = "{secret}"\n')

    def command(self, code: str, **fields: Any) -> None:
        more = "".join(f"{name} = {value}\n" for name, value in fields.items())
        self.write(
            f'[[key]]\nlabel = "vault"\ncommand = {json.dumps([sys.executable, "-S", "-c", code])}\n{more}'
        )

    async def go_on(self) -> None:
        self.gone_on += 1


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_watch, "LOOK_S", 0.05)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
async def watch(place: Place) -> AsyncIterator[Watch]:
    started: list[KeyWatch] = []

    async def start() -> KeyWatch:
        watch = KeyWatch(KeyRing(()), lambda: declared_keys(None, place.file), place.go_on, place.clock)
        started.append(watch)
        await watch.start()
        return watch

    yield start
    for each in started:
        await each.stop()


@pytest.fixture
def until(wait_until: Callable[..., None]) -> Until:
    async def wait(condition: Callable[[], object]) -> None:
        await apart(lambda: wait_until(condition, timeout=30))

    return wait


def secret(watch: KeyWatch) -> str | None:
    try:
        return watch.ring.usable(GROUP, now=watch.clock.now())[0].secret.get_secret_value()
    except NoUsableKey:
        return None


async def test_a_replaced_key_is_used_and_what_was_paused_goes_on(
    place: Place, watch: Watch, until: Until
) -> None:
    place.key("one")
    watching = await watch()
    assert (secret(watching), place.gone_on) == ("one", 0)
    place.key("two")
    await until(lambda: secret(watching) == "two" and place.gone_on == 1)


async def test_a_file_that_cannot_be_read_changes_nothing(place: Place, watch: Watch, until: Until) -> None:
    place.key("one")
    watching = await watch()
    for text in ("", "[[key", '[[key]]\nlabel = "main"\nfile = "nowhere"\n'):
        place.write(text)
        await until(lambda: watching._faults)
        assert secret(watching) == "one"
        place.key("one")
        await until(lambda: not watching._faults)
    assert place.gone_on == 0


async def test_a_key_that_is_taken_out_is_used_no_more(place: Place, watch: Watch, until: Until) -> None:
    place.key("one", "first")
    watching = await watch()
    place.key("two", "second")
    await until(lambda: [state.label for state in watching.ring.states(watching.clock.now())] == ["second"])


async def test_a_refusal_has_the_files_read_at_once(
    place: Place, watch: Watch, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_watch, "LOOK_S", 60)
    place.key("one")
    watching = await watch()
    place.key("two")
    (old,) = watching.ring.usable(GROUP)
    watching.ring.retire(old, None, "401")
    await until(lambda: secret(watching) == "two")


async def test_for_a_job_without_a_key_the_files_are_read_at_once_and_not_by_the_loop(
    place: Place, watch: Watch, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_watch, "LOOK_S", 60)
    place.key("one")
    watching = await watch()
    place.key("two")
    watching.read_soon()
    assert secret(watching) == "one"
    await until(lambda: secret(watching) == "two")


async def test_after_a_refusal_nothing_is_paused_before_the_files_were_read_again(
    place: Place, watch: Watch, until: Until
) -> None:
    place.key("one")
    watching = await watch()
    (key,) = watching.ring.usable(GROUP)
    assert not watching.ring.expecting()
    watching.ring.retire(key, None, "401")
    assert watching.ring.expecting()
    await until(lambda: not watching.ring.expecting())


async def test_the_first_token_is_there_when_the_worker_begins(place: Place, watch: Watch) -> None:
    place.command("print('token-1')")
    assert secret(await watch()) == "token-1"


async def test_tokens_follow_each_other_before_they_end_and_nothing_is_resumed_for_it(
    place: Place, watch: Watch, until: Until, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    place.command(
        f"import json, pathlib; p = pathlib.Path({str(count)!r}); n = len(p.read_text()) + 1 if p.exists() else 1; "
        "p.write_text('x' * n); print(json.dumps({'token': f'token-{n}', 'expires_in': 300}))"
    )
    watching = await watch()
    seen: set[str | None] = {secret(watching)}
    for number in (2, 3):
        place.clock.ahead += timedelta(seconds=210)  # due since the 200th, usable up to the 290th
        await until(lambda number=number: seen.add(secret(watching)) or f"token-{number}" in seen)
    assert seen == {"token-1", "token-2", "token-3"}
    assert place.gone_on == 0


async def test_a_refused_token_is_fetched_anew_and_what_was_paused_goes_on(
    place: Place, watch: Watch, until: Until, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptmill.claude.keys.tokens.AFTER_FAILURE_S", 0.1)
    source = tmp_path / "token"
    source.write_text("one")
    place.command(f"print(open({str(source)!r}).read())")
    watching = await watch()
    (old,) = watching.ring.usable(GROUP)
    source.write_text("two")
    watching.ring.retire(old, None, "401")
    assert secret(watching) is None
    await until(lambda: secret(watching) == "two" and place.gone_on == 1)


async def test_a_command_that_hangs_holds_up_neither_the_others_nor_the_files(
    place: Place, watch: Watch, until: Until, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(key_watch, "FIRST_TOKENS_S", 0.1)
    hangs = tmp_path / "the command hangs as long as this is here"
    hangs.touch()
    code = f"import os, time\nwhile os.path.exists({str(hangs)!r}): time.sleep(0.02)\nraise SystemExit(3)"
    command = json.dumps([sys.executable, "-S", "-c", code])
    slow = f'[[key]]\nlabel = "slow"\ncommand = {command}\ntimeout_s = 60\n'
    place.write(slow + '[[key]]\nlabel = "main"\nkey = "one"\n')
    watching = await watch()
    assert secret(watching) == "one"
    assert watching.ring.expecting()
    place.write(slow + '[[key]]\nlabel = "main"\nkey = "two"\n')
    await until(lambda: secret(watching) == "two")
    assert watching.ring.expecting()
    hangs.unlink()
    await until(lambda: not watching.ring.expecting())
    states = {state.label: state.why for state in watching.ring.states(watching.clock.now())}
    assert states["slow"] == "the command ended with status 3"


async def test_a_pause_that_came_after_the_key_is_lifted(place: Place, watch: Watch, until: Until) -> None:
    place.key("one")
    watching = await watch()
    watching.ring.on_held_in_vain()
    await until(lambda: place.gone_on == 1)


async def test_while_the_database_is_away_going_on_is_tried_again(place: Place, until: Until) -> None:
    tries: list[int] = []

    async def away() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError

    place.key("one")
    watching = KeyWatch(KeyRing(()), lambda: declared_keys(None, place.file), away, SystemClock())
    await watching.start()
    try:
        place.key("two")
        await until(lambda: len(tries) == 3)
    finally:
        await watching.stop()


async def test_an_endless_wait_for_a_file_holds_up_nothing() -> None:
    release = threading.Event()

    def hanging() -> Any:
        release.wait(60)
        raise ConfigurationError("gone", setting="X")

    kept = Key("main", SecretStr("one"), "default")
    watching = KeyWatch(KeyRing([kept]), hanging, lambda: apart(lambda: None), SystemClock())
    watching._begin(watching._read_files())
    await apart(lambda: None)
    assert watching.ring.usable(GROUP) == (kept,)
    release.set()
    await watching.stop()


PROVIDER = """
import threading
asked, released = 0, threading.Event()
def leaving(): raise SystemExit(1)
def hanging():
    global asked
    asked += 1
    if asked == 1:
        return {"token": "token-1", "expires_in": 300}
    released.wait(60)
    return "token-2"
"""


@pytest.fixture
def provided(place: Place, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`provided("hanging")`: the keys are what this function says."""
    monkeypatch.setattr("promptmill.claude.keys.tokens.AFTER_FAILURE_S", 0.05)
    (place.file.parent / "watched_provider.py").write_text(PROVIDER)
    monkeypatch.syspath_prepend(str(place.file.parent))
    monkeypatch.delitem(sys.modules, "watched_provider", raising=False)

    def write(name: str) -> None:
        place.write(f'[[key]]\nlabel = "p"\nprovider = "watched_provider:{name}"\ntimeout_s = 0.1\n')

    return write


async def test_a_function_that_asks_to_exit_ends_nothing(
    provided: Callable[[str], None], watch: Watch
) -> None:
    provided("leaving")
    watching = await watch()
    (state,) = watching.ring.states(watching.clock.now())
    assert (state.standing, state.why) == ("missing", "the provider failed (SystemExit)")


async def test_a_function_that_hangs_is_given_up_and_called_again_and_threads_do_not_pile_up(
    provided: Callable[[str], None],
    place: Place,
    watch: Watch,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def state() -> tuple[str, str]:
        (found,) = watching.ring.states(watching.clock.now())
        return found.standing, found.why or ""

    provided("hanging")
    monkeypatch.setattr(key_watch, "GRACE_S", 60)  # for the first, which answers
    watching = await watch()
    assert secret(watching) == "token-1"
    monkeypatch.setattr(key_watch, "GRACE_S", 0.1)
    with capture_logs() as logs:
        place.clock.ahead += timedelta(seconds=301)
        await until(lambda: "3 calls of the provider hang" in state()[1])
    assert state()[0] == "expired"
    whys = [str(each["why"]) for each in logs if each["event"] == "token_not_fetched"]
    assert whys[:3] == ["the provider has not answered within 0.1 s"] * 3
    provider = sys.modules["watched_provider"]
    assert provider.asked == 1 + 3
    provider.released.set()
    await until(lambda: secret(watching) == "token-2")


async def test_what_is_run_apart_and_exits_ends_only_itself() -> None:
    def leave() -> None:
        raise SystemExit(1)

    with pytest.raises(RuntimeError, match="SystemExit"):
        await apart(leave)
