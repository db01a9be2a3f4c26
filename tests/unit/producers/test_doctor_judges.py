"""What the doctor makes of an answer, where the fault itself is hard to have: another disk, another clock, an old server."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from producers.doctor.checks import Check, Verdict
from producers.doctor.database import judge_postgres, judge_schedules, judge_sqlite, judge_workers
from producers.doctor.keys import judge_ends, judge_mode, judge_told
from producers.doctor.limits import judge_slots
from producers.doctor.machine import disk_of, judge_disk, judge_room
from producers.doctor.redis_server import Facts, judge, redelivery
from producers.doctor.servers import clocks, way_to
from producers.doctor.surroundings import judge_names
from producers.doctor.words import checks
from producers.keys import KeyNow
from promptmill.claude.keys.key import SourceKind
from promptmill.claude.keys.sources import KeySource
from promptmill.settings.unread import unread_among
from promptmill.store.workers import WorkerRow

NOW = datetime(2026, 11, 23, tzinfo=UTC)
MOUNTS = "overlay / overlay rw 0 0\nserver:/x /mnt/my\\040share nfs4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n"
FINE = {"maxmemory_policy": "noeviction", "redis_version": "7.2.4", "aof_enabled": 1, "maxmemory": 0}


def bad(found: list[Check]) -> dict[str, Verdict]:
    return {each.name: each.verdict for each in found if each.verdict is not Verdict.OK}


def test_sqlite_on_a_network_disk_is_wrong() -> None:
    place = Path("/mnt/my share/data")
    (check,) = judge_disk(disk_of(place, MOUNTS), place / "promptmill.db")
    assert check.verdict is Verdict.WRONG
    assert "nfs4" in check.found
    assert judge_disk(disk_of(place, MOUNTS), None) == []
    assert judge_disk(disk_of(Path("/tmp/x"), MOUNTS), Path("/tmp/x/promptmill.db")) == []


@pytest.mark.parametrize(
    ("free", "verdict"), [(50_000_000, Verdict.WRONG), (500_000_000, Verdict.NOTE), (10**11, Verdict.OK)]
)
def test_a_disk_that_is_nearly_full_is_told_of(free: int, verdict: Verdict) -> None:
    assert judge_room(free, Path("/data")).verdict is verdict


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [(0.4, Verdict.OK), (-5, Verdict.NOTE), (7200, Verdict.WRONG), (-7200, Verdict.WRONG)],
)
def test_clocks_that_differ_are_told_of(seconds: float, verdict: Verdict) -> None:
    assert clocks("redis", timedelta(seconds=seconds)).verdict is verdict


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://127.0.0.1:6379/0", {}),
        ("rediss://:a-long-random-one@redis.inner/0", {}),
        ("rediss://:a-long-random-one@redis.inner/0?ssl_cert_reqs=none", {"it encryption": Verdict.NOTE}),
        ("redis://redis.inner", {"it encryption": Verdict.NOTE, "it password": Verdict.WRONG}),
        ("postgresql://me:postgres@db/x?sslmode=verify-full", {"it password": Verdict.WRONG}),
        ("postgresql://me:a-long-random-one@db/x?sslmode=require", {"it encryption": Verdict.NOTE}),
    ],
)
def test_a_server_elsewhere_needs_encryption_and_a_password(url: str, said: dict[str, Verdict]) -> None:
    found = way_to("it", url)
    assert bad(found) == said
    assert "a-long-random-one" not in str(found)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@db/x?sslmode=verify-full&sslcert=me.pem",
        "postgresql://db/x?sslmode=verify-full&password=a-long-random-one",
        "postgresql://me@/x?host=/run/postgresql",
        "postgresql://me@/x?host=127.0.0.1",
        "rediss://cache:6379/0?password=a-long-random-one",
        "redis+socket:///run/redis.sock",
        "sqs://AKIA:x@",
    ],
)
def test_nothing_is_said_of_what_is_in_order_or_cannot_be_judged(url: str) -> None:
    assert way_to("it", url) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://127.0.0.1/x?host=db&password=postgres&sslmode=verify-full", "it password"),
        ("amqps://rabbit//", "it password"),
        ("postgresql://me@/x?host=127.0.0.1,db", "it encryption"),
    ],
)
def test_host_and_password_are_read_in_the_query_too(url: str, said: str) -> None:
    assert set(bad(way_to("it", url))) == {said}


def test_a_key_that_is_refused_at_every_worker_is_wrong_and_at_some_worth_a_look() -> None:
    def told(**fields: Any) -> KeyNow:
        return KeyNow(label="main", account="x", source="file", **fields)

    everywhere = told(state="refused", why="401", workers=2, not_usable_at={"a:1": "", "b:2": ""})
    some = told(state="usable", workers=2, usable_at=1, not_usable_at={"b:2": ""})
    fine, untold = told(state="usable", workers=2, usable_at=2), told()
    assert bad(judge_told([everywhere])) == {"key main": Verdict.WRONG}
    assert bad(judge_told([some])) == {"key main": Verdict.NOTE}
    assert judge_told([fine, untold]) == []


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({}, {}),
        ({"redis_version": "5.0.7"}, {"redis version": Verdict.WRONG}),
        ({"redis_version": "5.0.7", "valkey_version": "9.1.2"}, {}),
        ({"maxmemory": 100, "used_memory": 95}, {"redis memory": Verdict.WRONG}),
        ({"aof_last_write_status": "err"}, {"redis persistence": Verdict.WRONG}),
        ({"aof_enabled": 0}, {"redis persistence": Verdict.NOTE}),
        ({"maxmemory_policy": "allkeys-lru"}, {"redis maxmemory-policy": Verdict.WRONG}),
        ({"maxmemory_policy": "volatile-lru"}, {"redis maxmemory-policy": Verdict.WRONG}),
    ],
)
def test_a_redis_that_would_lose_something_is_told_of(
    info: dict[str, object], said: dict[str, Verdict]
) -> None:
    assert bad(judge(Facts(FINE | info, 0.0), embedded=False)) == said


def test_a_redis_that_may_not_tell_of_itself_is_not_judged() -> None:
    assert bad(judge(Facts({}, 0.0), embedded=False)) == {}


@pytest.mark.parametrize(
    ("late", "options", "said"),
    [
        (False, {"ack_emulation": False}, {}),
        (True, {"visibility_timeout": 60}, {"visibility timeout": Verdict.WRONG}),
        (False, {"ack_emulation": True, "visibility_timeout": 60}, {"visibility timeout": Verdict.WRONG}),
        (True, {}, {}),  # kombu's own hour
    ],
)
def test_a_message_that_comes_again_while_its_call_goes_on_is_wrong(
    late: bool, options: dict[str, object], said: dict[str, Verdict]
) -> None:
    conf = SimpleNamespace(task_acks_late=late, broker_transport_options=options)
    assert bad(redelivery(conf, 900)) == said


def test_servers_that_are_too_old_are_wrong() -> None:
    assert bad(judge_postgres((12, 4))) == {"database version": Verdict.WRONG}
    assert bad(judge_postgres((18, 6))) == {}
    assert bad(judge_sqlite((3, 34, 1))) == {"sqlite version": Verdict.WRONG}


def worker(version: str = "", endpoint: str = "https://api.anthropic.com", slots: int = 100) -> WorkerRow:
    import promptmill  # noqa: PLC0415  # its version alone

    return WorkerRow(
        id="w",
        host="h",
        pid=1,
        version=version or promptmill.__version__,
        endpoint=endpoint,
        slots=slots,
        running=0,
        started_at=NOW,
        seen_at=NOW,
        stopped_at=None,
    )


def test_workers_must_agree() -> None:
    assert bad(judge_workers([worker(), worker()])) == {}
    assert bad(judge_workers([worker(), worker("0.0.1")])) == {"workers' versions": Verdict.WRONG}
    assert bad(judge_workers([worker("0.0.1")])) == {"workers' versions": Verdict.WRONG}  # with who asks
    assert bad(judge_workers([worker(), worker(endpoint="simulated")])) == {
        "workers' endpoints": Verdict.NOTE
    }


def test_schedules_need_a_beat() -> None:
    assert bad(judge_schedules(2, beat=False)) == {"schedules": Verdict.NOTE}
    assert bad(judge_schedules(2, beat=None)) == {"schedules": Verdict.NOTE}
    assert bad(judge_schedules(2, beat=True)) == {}
    assert judge_schedules(0, beat=None) == []


def test_too_few_slots_for_the_limits_are_told_of() -> None:
    """50 calls a second of 10 s each are 500 in flight."""
    took = {"sonnet": [10.0] * 30}
    assert bad(judge_slots(100, {"sonnet": 50.0}, took)) == {"slots": Verdict.NOTE}
    assert "500" in judge_slots(100, {"sonnet": 50.0}, took)[0].found
    assert judge_slots(1000, {"sonnet": 50.0}, took) == []
    assert judge_slots(100, {"sonnet": 50.0}, {"sonnet": [10.0] * 3}) == []


def test_a_key_that_ends_is_told_of_before() -> None:
    def source(label: str, ends: timedelta, kind: SourceKind = SourceKind.KEYS_FILE) -> KeySource:
        return KeySource(label=label, account="a", kind=kind, expires_at=NOW + ends)

    sources = [
        source("over", timedelta(days=-1)),
        source("soon", timedelta(days=3)),
        source("later", timedelta(days=30)),
        source("renewed", timedelta(minutes=3), SourceKind.COMMAND),
    ]
    assert bad(judge_ends(sources, NOW)) == {"key over": Verdict.WRONG, "key soon": Verdict.NOTE}


def test_a_key_file_that_others_may_read_is_told_of(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk")
    file.chmod(0o644)
    assert bad(judge_mode(file)) == {"key file": Verdict.NOTE}
    file.chmod(0o600)
    assert judge_mode(file) == []


def test_a_name_that_nothing_reads_is_told_of_with_the_one_that_was_meant() -> None:
    found = [
        "PROMPTMILL_CONCURENCY",
        "PROMPTMILL_RPM",
        "PROMPTMILL_ZZZ",
        "ANTHROPIC_APIKEY",
        "ANTHROPIC_LOG",
        "PATH",
    ]
    assert {each.name: each.advice for each in judge_names(unread_among("environment", found))} == {
        "ANTHROPIC_APIKEY": "ANTHROPIC_API_KEY is the nearest",
        "PROMPTMILL_CONCURENCY": "PROMPTMILL_CONCURRENCY is the nearest",
        "PROMPTMILL_ZZZ": "docs/settings.md lists them all",
    }


def test_a_name_whose_beginning_is_misspelt_is_told_of_too() -> None:
    found = [
        "PROMTMILL_ITPM",
        "PROMPT_MILL_RPM",
        "PROMPTMIL_ZZZ",
        "PROMPT_COMMAND",
        "PROMPT",
        "TREADMILL_RPM",
    ]
    assert {each.name: each.advice for each in judge_names(unread_among("environment", found))} == {
        "PROMTMILL_ITPM": "PROMPTMILL_ITPM is the nearest",
        "PROMPT_MILL_RPM": "PROMPTMILL_RPM is the nearest",
        "PROMPTMIL_ZZZ": "docs/settings.md lists them all",
    }


def test_what_is_said_fits_a_terminal_of_80_columns() -> None:
    long = Check(
        "redis", Verdict.WRONG, "something that takes many words to say " * 4, "do this and that " * 8
    )
    assert max(map(len, checks([long]).splitlines())) <= 80
