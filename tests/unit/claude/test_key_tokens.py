"""Short-lived tokens: what a command or a function may say, and when it is asked again."""

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from promptmill.claude.keys import Header, KeySource, SourceKind, Token, TokenKeeper, fetch_token
from promptmill.clock import ManualClock
from promptmill.errors import Unavailable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SAID = "CANARY-token"


def by_command(code: str, **fields: Any) -> KeySource:
    command = (sys.executable, "-S", "-c", code)
    return KeySource(label="vault", account="a", kind=SourceKind.COMMAND, command=command, **fields)


def by_provider(name: str) -> KeySource:
    return KeySource(label="cloud", account="a", kind=SourceKind.PROVIDER, provider=f"token_shop:{name}")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token_shop.py").write_text(
        "from types import SimpleNamespace\n"
        f"def plain(): return '{SAID}'\n"
        f"async def later(): return {{'access_token': '{SAID}', 'expires_in': 60}}\n"
        f"def forced(*, force_refresh=False): return SimpleNamespace(token='{SAID}' * force_refresh, expires_at=1767225660)\n"
        f"def broken(): raise ValueError('{SAID}')\n"
        "def nothing(): return None\n"
        "def leaving(): raise SystemExit(2)\n"
        "async def canceled(): import asyncio; raise asyncio.CancelledError\n"
    )
    (tmp_path / "token_script.py").write_text("import sys\nsys.exit(1)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "token_shop", raising=False)


def test_a_script_that_ends_when_it_is_imported_ends_nothing_else(shop: None) -> None:
    source = KeySource(label="cloud", account="a", kind=SourceKind.PROVIDER, provider="token_script:token")
    with pytest.raises(Unavailable, match=r"the provider failed \(SystemExit\)"):
        fetch_token(source, ManualClock(NOW))


@pytest.mark.parametrize(
    ("printed", "expires_at"),
    [
        (f"  {SAID}\n", None),
        (json.dumps({"token": SAID}), None),
        (json.dumps({"token": SAID, "expires_at": "2026-01-01T02:00:00+01:00"}), NOW + timedelta(hours=1)),
        (json.dumps({"token": SAID, "expires_at": "2026-01-01T01:00:00Z"}), NOW + timedelta(hours=1)),
        (json.dumps({"token": SAID, "expires_at": NOW.timestamp() + 60}), NOW + timedelta(minutes=1)),
        (json.dumps({"access_token": SAID, "expires_in": 60}), NOW + timedelta(minutes=1)),
        (json.dumps({"access_token": SAID, "expires_in": "60"}), NOW + timedelta(minutes=1)),
        (
            json.dumps({"token": SAID, "expires_at": f"{NOW.timestamp() + 60:.0f}"}),
            NOW + timedelta(minutes=1),
        ),
        (json.dumps({"token": SAID, "expires_in": None}), None),
    ],
)
def test_a_command_prints_a_token_alone_or_with_its_end(printed: str, expires_at: datetime | None) -> None:
    token = fetch_token(by_command(f"print({printed!r})"), ManualClock(NOW))
    assert token == Token(SecretStr(SAID), expires_at)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (f"import sys; print('{SAID}'); sys.exit(3)", "ended with status 3"),
        ("", "empty or holds characters no key has"),
        (f"print('{SAID} two words')", "holds characters no key has"),
        (f'print(\'{{"token": "{SAID}"\')', "JSONDecodeError"),
        (f'print(\'{{"secret": "{SAID}"}}\')', "gave no token"),
        (f'print(\'{{"token": "{SAID}", "expires_at": "2026-01-01"}}\')', "expires_at .* a date with a zone"),
        (f'print(\'{{"token": "{SAID}", "expires_at": "soon"}}\')', "expires_at .* is not a date"),
        (f'print(\'{{"token": "{SAID}", "expires_in": "1h"}}\')', "expires_in .* is not a number"),
        (f'print(\'{{"token": "{SAID}", "expires_in": true}}\')', "expires_in .* is not a number"),
        (f'print(\'{{"token": "{SAID}", "expires_in": -1}}\')', "ended already"),
        (f"print('{SAID}' * 10000)", "far more than a token"),
    ],
)
def test_a_command_that_fails_is_told_without_what_it_said(code: str, why: str) -> None:
    with pytest.raises(Unavailable, match=why) as caught:
        fetch_token(by_command(code), ManualClock(NOW))
    assert "CANARY" not in str(caught.value)
    assert caught.value.__context__ is None or "CANARY" not in str(caught.value.__context__)


def test_a_command_that_is_not_there_is_told() -> None:
    source = KeySource(label="v", account="a", kind=SourceKind.COMMAND, command=("no-such-program",))
    with pytest.raises(Unavailable, match=r"the command failed \(FileNotFoundError\)"):
        fetch_token(source, ManualClock(NOW))


@pytest.mark.parametrize("code", ["input(); import time; time.sleep(60)", "import time; time.sleep(60)"])
def test_a_slow_command_is_ended_at_its_time_limit(code: str) -> None:
    begun = time.monotonic()
    with pytest.raises(Unavailable):
        fetch_token(by_command(code, timeout_s=0.3), ManualClock(NOW))
    assert time.monotonic() - begun < 5


def test_what_a_command_started_ends_with_it(
    tmp_path: Path, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = tmp_path / "lives"
    child = (
        f"import os, pathlib, time; said = pathlib.Path({str(tmp_path / 'pid')!r}); "
        f"said.write_text(str(os.getpid())); said.rename({str(lives)!r}); print('x', flush=True); time.sleep(600)"
    )
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', {child!r}])"
    over_once_it_lives = SimpleNamespace(monotonic=lambda: time.monotonic() + 100 * lives.exists())
    monkeypatch.setattr("promptmill.claude.keys.tokens.time", over_once_it_lives)
    with pytest.raises(Unavailable, match="longer than 60 s"):
        fetch_token(by_command(code, timeout_s=60), ManualClock(NOW))
    wait_until(lambda: has_ended(int(lives.read_text())))


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    ("name", "expires_at"),
    [("plain", None), ("later", NOW + timedelta(minutes=1)), ("forced", NOW + timedelta(minutes=1))],
)
def test_a_function_returns_a_text_a_dictionary_or_an_object(
    shop: None, name: str, expires_at: datetime | None
) -> None:
    assert fetch_token(by_provider(name), ManualClock(NOW)) == Token(SecretStr(SAID), expires_at)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("broken", "ValueError"),
        ("nothing", "no token"),
        ("absent", "AttributeError"),
        ("leaving", "SystemExit"),
        ("canceled", "CancelledError"),
    ],
)
def test_a_function_that_fails_is_told_without_what_it_said(shop: None, name: str, why: str) -> None:
    with pytest.raises(Unavailable, match=why) as caught:
        fetch_token(by_provider(name), ManualClock(NOW))
    assert "CANARY" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def keeper(clock: ManualClock) -> TokenKeeper:
    return TokenKeeper(by_command("", refresh_s=300), clock)


def a_token(seconds: float | None, secret: str = "sk-ant-oat01-one") -> Token:
    return Token(SecretStr(secret), None if seconds is None else NOW + timedelta(seconds=seconds))


def due_after(keeper: TokenKeeper, clock: ManualClock) -> int:
    begun = clock.now()
    while not keeper.is_due:
        clock.advance(1)
    return int((clock.now() - begun).total_seconds())


@pytest.mark.parametrize(("life", "due"), [(3600, 3480), (60, 40), (None, 300), (2, 2)])
def test_a_token_is_fetched_anew_before_it_ends(
    keeper: TokenKeeper, clock: ManualClock, life: float | None, due: int
) -> None:
    keeper.took(a_token(life))
    assert due_after(keeper, clock) == due


def test_a_short_token_is_used_nearly_to_its_end_and_a_long_one_not_in_its_last_seconds(
    keeper: TokenKeeper,
) -> None:
    spared = []
    for life in (60, 3600):
        keeper.took(a_token(life, f"sk-ant-oat01-{life}"))
        assert keeper.key is not None
        assert keeper.key.expires_at is not None
        assert keeper.key.use_until is not None
        spared.append((keeper.key.expires_at - keeper.key.use_until).total_seconds())
    assert spared == [6, 10]


def test_a_failure_leaves_the_token_in_use_and_is_tried_again_ever_later(
    keeper: TokenKeeper, clock: ManualClock
) -> None:
    keeper.took(a_token(3600))
    waits = []
    for _ in range(8):
        keeper.failed("ended with status 1")
        waits.append(due_after(keeper, clock))
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
    assert keeper.key is not None


def test_a_refused_token_is_replaced_at_once_unless_it_was_fresh(
    keeper: TokenKeeper, clock: ManualClock
) -> None:
    waits = []
    for lived, secret in ((60, "one"), (1, "two"), (1, "three"), (60, "four")):
        keeper.took(a_token(3600, secret))
        clock.advance(lived)
        assert keeper.key is not None
        keeper.refused(keeper.key)
        assert keeper.key is None
        waits.append(due_after(keeper, clock))
    assert waits == [0, 5, 10, 0]


def test_an_older_token_that_is_refused_late_changes_nothing(keeper: TokenKeeper, clock: ManualClock) -> None:
    keeper.took(a_token(60, "old"))
    old = keeper.key
    assert old is not None
    keeper.took(a_token(3600, "new"))
    keeper.refused(old)
    assert keeper.key is not None


def test_only_one_fetch_is_on_its_way_and_after_a_failure_it_is_not_waited_for(
    keeper: TokenKeeper, clock: ManualClock
) -> None:
    assert (keeper.is_due, keeper.is_awaited) == (True, True)
    keeper.asked()
    assert (keeper.is_due, keeper.is_awaited) == (False, True)
    keeper.failed("it hangs")
    clock.advance(5)
    assert (keeper.is_due, keeper.is_awaited) == (True, False)
    assert keeper.why_missing == "it hangs"


def test_failures_that_were_overcome_do_not_add_up(keeper: TokenKeeper, clock: ManualClock) -> None:
    for _ in range(4):
        keeper.failed("once")
        assert due_after(keeper, clock) == 5
        keeper.took(Token(SecretStr("sk-ant-oat01-x"), None))


def test_a_command_that_cannot_be_killed_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def forbidden(_group: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr("os.killpg", forbidden)
    monkeypatch.setattr("promptmill.claude.keys.tokens.END_S", 0.1)
    stays = tmp_path / "the command stays as long as this does"
    stays.touch()
    code = f"import os, time\nwhile os.path.exists({str(stays)!r}): time.sleep(0.02)"
    with pytest.raises(Unavailable, match="longer than"):
        fetch_token(by_command(code, timeout_s=0.2), ManualClock(NOW))
    stays.unlink()


@pytest.mark.parametrize(
    ("secret", "header"),
    [("sk-ant-oat01-x", Header.BEARER), ("sk-ant-api03-x", Header.X_API_KEY), ("gw-token", Header.BEARER)],
)
def test_what_is_fetched_is_a_bearer_token_unless_it_looks_like_an_api_key(
    keeper: TokenKeeper, secret: str, header: Header
) -> None:
    keeper.took(a_token(60, secret))
    assert keeper.key is not None
    assert keeper.key.header is header
