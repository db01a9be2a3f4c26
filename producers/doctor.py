"""The doctor: tries everything Promptmill needs, and says what to do about what does not work.

Each check is a function from the settings to a Check; nothing is changed and nothing is paid for.
"""

import asyncio
import os
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from producers.limits_groups import strange_groups
from producers.limits_now import set_limits
from producers.limits_reader import START_REDIS, LimitsReader
from producers.redis_address import with_running_redis
from promptmill.broker import reach
from promptmill.catalogue import Catalogue
from promptmill.errors import ClaudeError, KeyRejected, PromptmillError, Unavailable
from promptmill.logs import scrub
from promptmill.runtime import Runtime
from promptmill.settings import REAL_API, VARIABLES, Settings
from promptmill.store import workers
from promptmill.store.database import Database, database_now

if TYPE_CHECKING:
    from promptmill.limits import PoolState

_PATIENCE_S = 5.0
_FILES_BESIDE_CALLS = 256
"""File descriptors a worker needs beside one for each call: Redis, database, logs, Python itself."""


class Verdict(StrEnum):
    """How a check went."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried; `advice` says what to do unless all is well."""

    name: str
    verdict: Verdict
    found: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """A setting as it holds: secrets only as present or not."""

    name: str
    value: str
    origin: str


def values(settings: Settings) -> list[Value]:
    """Every setting that has a variable, with what holds and where it came from."""
    return [
        Value(names[0], _shown(path, settings), settings.origins.get(path, "default"))
        for path, names in VARIABLES.items()
    ]


def examine(settings: Settings) -> list[Check]:
    """Run every check, in the order in which one fault explains the next."""
    checks: list[Callable[[Settings], list[Check]]] = [
        _home,
        _redis,
        _broker,
        _database,
        _key,
        _limits,
        _groups,
        _endpoint,
        _file_descriptors,
    ]
    return [check for examination in checks for check in examination(settings)]


def _home(settings: Settings) -> list[Check]:
    folder = settings.home.absolute()
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        advice = "set PROMPTMILL_HOME to a folder you may write to"
        return [Check("data folder", Verdict.WRONG, f"{folder} cannot be written", advice)]
    return [
        Check("data folder", Verdict.OK, str(folder) + ("" if folder.exists() else ", made at first use"))
    ]


def _redis(settings: Settings) -> list[Check]:
    found = with_running_redis(settings)
    if found.redis_url is None:
        return [Check("redis", Verdict.OK, "embedded; `run` and `up` start it, nothing uses it now")]
    where = "embedded, running" if settings.redis_url is None else scrub(found.redis_url)
    try:
        policy = _memory_policy(found.redis_url)
    except Exception as error:  # noqa: BLE001  # whatever it is, the person must hear it
        return [Check("redis", Verdict.WRONG, f"{where}: {_reason(error)}", START_REDIS)]
    return [Check("redis", Verdict.OK, where), _eviction(policy)]


def _broker(settings: Settings) -> list[Check]:
    if settings.broker_url is None:
        return []
    where = scrub(settings.broker_url)
    try:
        reach(settings.broker_url, patience_s=_PATIENCE_S)
    except Exception as error:  # noqa: BLE001  # whatever it is, the person must hear it
        advice = "start it, or correct PROMPTMILL_BROKER_URL"
        return [Check("broker", Verdict.WRONG, f"{where}: {_reason(error)}", advice)]
    return [Check("broker", Verdict.OK, where)]


def _memory_policy(url: str) -> str | None:
    from redis import Redis  # noqa: PLC0415  # 0.25 s that other commands do not need

    with Redis.from_url(
        url, socket_timeout=_PATIENCE_S, socket_connect_timeout=_PATIENCE_S, decode_responses=True
    ) as client:
        client.ping()
        memory: Mapping[str, Any] = client.info("memory")
    return memory.get("maxmemory_policy")


def _eviction(policy: str | None) -> Check:
    name = "redis maxmemory-policy"
    if policy in (None, "noeviction"):
        return Check(name, Verdict.OK, policy or "not said by this server")
    advice = "CONFIG SET maxmemory-policy noeviction: an evicted limit or message is silent loss"
    return Check(name, Verdict.WRONG, str(policy), advice)


def _database(settings: Settings) -> list[Check]:
    url = scrub(settings.effective_database_url)
    file = _sqlite_file(settings)
    if file is not None and not file.exists():
        return [Check("database", Verdict.OK, f"{url}, made at first use")]
    try:
        database = Database.open(settings.effective_database_url)
    except PromptmillError as error:
        return [Check("database", Verdict.WRONG, scrub(str(error)), "set PROMPTMILL_DATABASE_URL")]
    try:
        return [Check("database", Verdict.OK, url), *_schema(database)]
    finally:
        database.close()


def _schema(database: Database) -> list[Check]:
    try:
        database.check_schema()
        with database.read() as connection:
            alive = workers.live(connection, database_now(connection))
    except PromptmillError as error:
        return [Check("schema", Verdict.WRONG, str(error), "run: promptmill migrate")]
    if not alive:
        none = Check("workers", Verdict.NOTE, "none is running", "`run` starts its own; else: promptmill up")
        return [Check("schema", Verdict.OK, "of this version"), none]
    slots = sum(worker.slots for worker in alive)
    found = f"{len(alive)} running, {slots:,} calls at once, for {', '.join(sorted({str(w.endpoint) for w in alive}))}"
    return [Check("schema", Verdict.OK, "of this version"), Check("workers", Verdict.OK, found)]


def _sqlite_file(settings: Settings) -> Path | None:
    scheme, _, path = settings.effective_database_url.partition(":///")
    return Path(path) if scheme.startswith("sqlite") else None


def _key(settings: Settings) -> list[Check]:
    from promptmill.claude.keys import load_keys  # noqa: PLC0415  # 0.4 s of imports

    claude = settings.claude
    try:
        keys = load_keys(claude.read_api_key(), claude.keys_file)
    except PromptmillError as error:
        return [Check("key", Verdict.WRONG, str(error), "correct the setting it names")]
    if keys:
        found = ", ".join(f"{key.label} (account {key.account})" for key in keys)
        return [Check("key", Verdict.OK, found), *_idle_entries(settings, [key.account for key in keys])]
    if claude.base_url == REAL_API:
        advice = "set ANTHROPIC_API_KEY to call Claude; until then `run` uses the simulated one"
        return [Check("key", Verdict.NOTE, "none", advice)]
    return [Check("key", Verdict.NOTE, "none", "set ANTHROPIC_API_KEY unless a simulator is meant")]


def _idle_entries(settings: Settings, accounts: Sequence[str]) -> list[Check]:
    found = f"no key belongs to this account; there are: {', '.join(dict.fromkeys(accounts))}"
    return [
        Check(
            f"limits.accounts.{name}",
            Verdict.NOTE,
            found,
            "correct its name in promptmill.toml: nothing follows these limits",
        )
        for name in settings.limits.not_among(accounts)
    ]


def _limits(settings: Settings) -> list[Check]:
    told = [each for each in set_limits(settings) if each.is_set]
    if told:
        return [Check("limits", Verdict.OK, "set; promptmill limits shows them")]
    try:
        with LimitsReader(settings) as reader:
            known = [state.pool.group for state in reader.states() if _is_known(state)]
    except Unavailable:
        known = []
    if known:
        return [Check("limits", Verdict.OK, f"learned for {', '.join(sorted(set(known)))}")]
    advice = (
        "set PROMPTMILL_RPM, PROMPTMILL_ITPM and PROMPTMILL_OTPM, or while workers run: "
        "promptmill limits probe; else they are learned from the replies, beginning slowly"
    )
    return [Check("limits", Verdict.NOTE, "unknown", advice)]


def _groups(settings: Settings) -> list[Check]:
    try:
        catalogue = Catalogue(settings.models)
    except PromptmillError as error:
        return [Check("models", Verdict.WRONG, str(error), "correct it in promptmill.toml")]
    advice = (
        "correct the name in promptmill.toml, unless it is a newer model: nothing else follows these limits"
    )
    return [
        Check(
            each.setting,
            Verdict.NOTE,
            "no model that is known here is of this group"
            + (f"; the nearest is {each.nearest}" if each.nearest else ""),
            advice,
        )
        for each in strange_groups(settings.limits, catalogue)
    ]


def _is_known(state: "PoolState") -> bool:
    from promptmill.limits import LimitSource  # noqa: PLC0415  # loaded by who asked the limiter

    return any(each.source in (LimitSource.LEARNED, LimitSource.PROBED) for each in state.dimensions)


def _endpoint(settings: Settings) -> list[Check]:
    url = scrub(settings.claude.base_url)
    runtime = Runtime(settings, database=None)  # type: ignore[arg-type]  # asks no database
    try:
        endpoint = runtime.endpoint
    except PromptmillError as error:
        return [
            Check("endpoint", Verdict.WRONG, str(error), "correct ANTHROPIC_BASE_URL, or start what is there")
        ]
    if endpoint.simulated:
        return [
            Check(
                "endpoint",
                Verdict.NOTE,
                f"{url}, a simulated Claude",
                "unset ANTHROPIC_BASE_URL for the real one",
            )
        ]
    try:
        models = asyncio.run(_list_models(runtime))
    except KeyRejected as error:
        return [
            Check("endpoint", Verdict.WRONG, f"{url} refuses the key: {error}", "correct ANTHROPIC_API_KEY")
        ]
    except ClaudeError as error:
        advice = "check the network; ANTHROPIC_BASE_URL says where Claude is"
        return [Check("endpoint", Verdict.WRONG, f"{url}: {error}", advice)]
    except PromptmillError:
        return [Check("endpoint", Verdict.NOTE, f"{url}, not tried without a key")]
    return [Check("endpoint", Verdict.OK, f"{url}, {models} models")]


async def _list_models(runtime: Runtime) -> int:
    """How many models the first key may use: a free call that shows whether address and key work."""
    client = runtime.client()
    try:
        return len(await client.list_models(runtime.keys().pick("any")))
    finally:
        await client.aclose()


def _file_descriptors(settings: Settings) -> list[Check]:
    # Workers raise the soft limit by themselves, as far as the hard one allows.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    calls = settings.worker.concurrency
    needed = calls + _FILES_BESIDE_CALLS
    if hard == resource.RLIM_INFINITY or hard >= needed:
        return [Check("file descriptors", Verdict.OK, f"enough for {calls:,} calls in flight")]
    found = f"{hard:,} allowed, {needed:,} needed for {calls:,} calls in flight"
    advice = f"ulimit -Hn {needed}, or lower PROMPTMILL_CONCURRENCY to {max(1, hard - _FILES_BESIDE_CALLS)}"
    return [Check("file descriptors", Verdict.WRONG, found, advice)]


def _shown(path: str, settings: Settings) -> str:
    value: Any = settings
    for name in path.split("."):
        value = getattr(value, name)
    if path in ("claude.api_key", "claude.admin_key"):
        return "not set" if value is None else "set (not shown)"
    if path == "database_url":
        value = settings.effective_database_url
    if path == "redis_url" and value is None:
        return "embedded"
    return "not set" if value is None else scrub(str(value))


def _reason(error: Exception) -> str:
    return scrub(str(error)) or type(error).__name__
