"""The database, and what it tells of the workers: tables, clocks, versions, whether there are enough slots."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import promptmill
from producers.doctor.checks import Check, note, ok, wrong
from producers.doctor.keys import judge_mode
from producers.doctor.machine import sqlite_file
from producers.doctor.redis_server import beat_is_alive
from producers.doctor.servers import clocks, way_to
from promptmill.encryption import read_vault
from promptmill.errors import PromptmillError
from promptmill.logs import scrub
from promptmill.settings import Settings
from promptmill.store import Connection, schedules, schema, workers
from promptmill.store.database import Database, database_now
from promptmill.store.workers import WorkerRow

OLDEST_POSTGRES = 13
OLDEST_SQLITE = (3, 35)
"""RETURNING."""


def database(settings: Settings) -> list[Check]:
    """The store, and all that it knows."""
    url = settings.effective_database_url
    file = sqlite_file(settings)
    if file is not None and not file.exists():
        return [ok("database", f"{scrub(url)}, made at first use")]
    try:
        vault = read_vault(settings.encryption_keys_file)
    except PromptmillError as error:
        return [wrong("encryption at rest", str(error), "correct PROMPTMILL_ENCRYPTION_KEYS_FILE")]
    try:
        opened = Database.open(url, vault)
    except PromptmillError as error:
        return [wrong("database", scrub(str(error)), "set PROMPTMILL_DATABASE_URL"), *way_to("database", url)]
    try:
        return [ok("database", scrub(url)), *way_to("database", url), *_asked(opened, settings)]
    finally:
        opened.close()


def _asked(opened: Database, settings: Settings) -> list[Check]:
    try:
        with opened.read() as connection:
            checks = [*_version(connection), *_clock(connection)]
            pending = schema.pending(connection)
    except PromptmillError as error:
        return [wrong("database", scrub(str(error)), "start it, or correct PROMPTMILL_DATABASE_URL")]
    if pending:
        what = f"{len(pending)} migration{'s' if len(pending) > 1 else ''} pending ({', '.join(pending)})"
        return [*checks, wrong("schema", what, "stop the workers, then run: promptmill migrate")]
    try:
        opened.check_schema()
        with opened.read() as connection:
            alive = workers.live(connection, database_now(connection))
            scheduled = schedules.count_active(connection)
    except PromptmillError as error:
        return [*checks, wrong("schema", str(error), "run: promptmill migrate")]
    return [
        *checks,
        ok("schema", "of this version"),
        *_encryption(opened, settings),
        *judge_workers(alive),
        *judge_schedules(scheduled, beat=beat_is_alive(settings) if scheduled else None),
    ]


def _encryption(opened: Database, settings: Settings) -> list[Check]:
    name, file = "encryption at rest", settings.encryption_keys_file
    try:
        if not opened.check_keys():
            advice = "put it back and run: promptmill encrypt; if it is lost: promptmill purge BATCH --what everything"
            return [note(name, "the key of the oldest encrypted batch is not in the file", advice)]
    except PromptmillError as error:
        return [wrong(name, str(error), "set PROMPTMILL_ENCRYPTION_KEYS_FILE to the file with its key")]
    return [] if file is None else [ok(name, f"by the keys of {file}"), *judge_mode(file)]


def judge_workers(alive: Sequence[WorkerRow]) -> list[Check]:
    """Whether any runs, and whether they agree with each other and with this program."""
    if not alive:
        return [note("workers", "none is running", "`run` starts its own; else: promptmill up")]
    endpoints = sorted({str(worker.endpoint) for worker in alive})
    slots = sum(worker.slots for worker in alive)
    found = f"{len(alive)} running, {slots:,} calls at once, for {', '.join(endpoints)}"
    checks = [ok("workers", found)]
    if len(endpoints) > 1:
        advice = "give all the same ANTHROPIC_BASE_URL: a batch is answered where it was meant"
        checks.append(note("workers' endpoints", f"{len(endpoints)} different ones", advice))
    versions = sorted({worker.version for worker in alive} | {promptmill.__version__})
    if len(versions) > 1:
        advice = "stop and start the older ones, one by one: nothing is lost by it"
        checks.append(
            wrong("workers' versions", f"{', '.join(versions)} ({promptmill.__version__} asks)", advice)
        )
    return checks


def judge_schedules(active: int, *, beat: bool | None) -> list[Check]:
    """A worker submits what is due, and a beat wakes it in time; `beat` is whether one lives, None: Redis cannot say."""
    if not active:
        return []
    found = f"{active} active"
    if beat:
        return [ok("schedules", f"{found}, and a beat that wakes a worker in time")]
    if beat is None:
        return [note("schedules", f"{found}; whether a beat runs is not known", "see redis above")]
    advice = "a worker looks every few seconds by itself; to the moment with: promptmill up, or: celery -A workers.app beat"
    return [note("schedules", f"{found}, and no beat runs", advice)]


def _clock(connection: Connection) -> list[Check]:
    began = datetime.now(UTC)
    told = database_now(connection)
    here = began + (datetime.now(UTC) - began) / 2
    apart = told - here
    # SQLite's clock is this machine's.
    return [] if connection.dialect.name == "sqlite" else [clocks("database", _rounded(apart))]


def _rounded(apart: timedelta) -> timedelta:
    return timedelta(seconds=round(apart.total_seconds(), 1))


def _version(connection: Connection) -> list[Check]:
    if connection.dialect.name == "sqlite":
        return judge_sqlite(sqlite3.sqlite_version_info)
    return judge_postgres(connection.dialect.server_version_info or ())


def judge_sqlite(version: tuple[int, ...]) -> list[Check]:
    """`version` is the library's that Python was built with."""
    if version >= OLDEST_SQLITE:
        return []
    return [wrong("sqlite version", ".".join(map(str, version)), "take a newer Python, or Postgres")]


def judge_postgres(version: tuple[int | str, ...]) -> list[Check]:
    """`version` is the server's."""
    said = ".".join(map(str, version))
    if not version or int(version[0]) >= OLDEST_POSTGRES:
        return [ok("database version", f"Postgres {said}")] if version else []
    return [wrong("database version", f"Postgres {said}", f"take Postgres {OLDEST_POSTGRES} or newer")]
