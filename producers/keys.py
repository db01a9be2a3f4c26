"""The keys as they stand now: what the settings declare here, and what the workers tell of them. Never a value.

The idea: whether a key works is known only to who calls with it. So workers tell it in Redis, and where none does, only
what is declared can be shown.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from producers.key_files import is_open_to_others
from producers.redis_address import with_running_redis
from promptmill.errors import ConfigurationError
from promptmill.logs import scrub
from promptmill.routes import KEY_STATES, KEYS_USED, key_field
from promptmill.settings import Settings, load

if TYPE_CHECKING:
    from redis import Redis

PATIENCE_S: Final = 2.0
FRESH_S: Final = 30.0
"""So old may be what a worker told; it tells every few seconds."""
UNTOLD: Final = "unknown"
"""The state of a key that no worker tells of."""
_BEST_FIRST = ("usable", "resting", "expired", "refused", "missing", UNTOLD)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyNow:
    """One key.

    Attributes:
        source: `variable`, `file`, `keys file`, `command` or `provider`.
        simulated: workers call a simulated Claude with it.
        state: `usable`, `refused`, `resting` (its account, at a spend limit), `expired`, `missing` (it cannot be read or
            fetched), or `unknown` where no worker tells; the best that any worker says.
        why: why it is not usable, or not at every worker.
        refused_for: model groups it may not be used for, and why.
        until: until when it rests, where that is known.
        used_at: when a worker last called with it; None where nobody knows.
        calls: how many calls workers began with it within five minutes.
        workers: how many tell of it.
        usable_at: at how many of them it is usable.
        not_usable_at: at which it is not, by host and process, and why; those that do not have it among them.
    """

    label: str
    account: str
    source: str
    simulated: bool = False
    state: str = UNTOLD
    why: str | None = None
    refused_for: Mapping[str, str] = field(default_factory=dict)
    until: datetime | None = None
    expires_at: datetime | None = None
    used_at: datetime | None = None
    calls: int = 0
    workers: int = 0
    usable_at: int = 0
    not_usable_at: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeysNow:
    """All of them.

    Attributes:
        keys: those that workers have first, in their order of preference.
        workers: how many worker processes tell.
        silence: why workers could not be asked; None when they could.
        fault: what is wrong with the file of keys as it is here; None when nothing is.
        readable_by_others: files of keys here that others on this machine may read.
    """

    keys: tuple[KeyNow, ...]
    workers: int
    silence: str | None = None
    fault: str | None = None
    readable_by_others: tuple[Path, ...] = ()


def list_keys(*, settings: Settings | None = None) -> KeysNow:
    """How every key stands. It reads no key's value and fetches nothing.

    Args:
        settings: whose keys, and which Redis; those of this process when None.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    settings = settings or load()
    declared, files, fault = _declared(settings)
    told, used, silence = _told(settings)
    keys = merged(declared, told, used)
    return KeysNow(keys, len(told), silence, fault, tuple(filter(is_open_to_others, files)))


def merged(
    declared: Sequence[KeyNow],
    told: Mapping[str, Sequence[Mapping[str, Any]]],
    used: Mapping[str, datetime],
) -> tuple[KeyNow, ...]:
    """What is declared here and what each worker tells (by its name), as one list. Pure."""
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for worker, keys_there in told.items():
        for key in keys_there:
            found.setdefault((key["account"], key["label"]), {})[worker] = key
    keys = [_of_workers(said, told, used.get(key_field(*place))) for place, said in found.items()]
    known = {(key.account, key.label) for key in keys}
    return (*keys, *(key for key in declared if (key.account, key.label) not in known))


def _of_workers(
    told: Mapping[str, Mapping[str, Any]], everybody: Iterable[str], used_at: datetime | None
) -> KeyNow:
    from promptmill.claude.keys import configured_account  # noqa: PLC0415  # 0.4 s of imports

    said = told.values()
    best = min(said, key=lambda each: _BEST_FIRST.index(each["standing"]))
    worst = max(said, key=lambda each: _BEST_FIRST.index(each["standing"]))
    return KeyNow(
        label=best["label"],
        account=(account := configured_account(best["account"])),
        source=best["kind"],
        simulated=account != best["account"],
        state=best["standing"],
        why=best["why"] or worst["why"],
        refused_for={group: why for each in said for group, why in each["refused_for"].items()},
        until=_moment(best["until"]),
        expires_at=_moment(best["expires_at"]),
        used_at=used_at,
        calls=sum(each["calls"] for each in said),
        workers=len(said),
        usable_at=sum(each["standing"] == "usable" for each in said),
        not_usable_at={
            worker: _why_not(told.get(worker))
            for worker in everybody
            if worker not in told or told[worker]["standing"] != "usable"
        },
    )


def _why_not(key: Mapping[str, Any] | None) -> str:
    if key is None:
        return "no such key there"
    return f"{key['standing']} ({key['why']})" if key["why"] else str(key["standing"])


def _declared(settings: Settings) -> tuple[list[KeyNow], list[Path], str | None]:
    """The keys, the files they stand in, and what is wrong with the file of several."""
    from promptmill.claude.keys import declared_keys  # noqa: PLC0415  # 0.4 s of imports

    claude = settings.claude
    files = [claude.keys_file] if claude.keys_file else []
    try:
        sources = declared_keys(claude.api_key, claude.keys_file, api_key_file=claude.api_key_file)
    except ConfigurationError as error:
        return [], files, scrub(str(error))
    files += [each.path for each in sources if each.path is not None]
    keys = [
        KeyNow(label=each.label, account=each.account, source=each.kind, expires_at=each.expires_at)
        for each in sources
    ]
    return keys, list(dict.fromkeys(files)), None


def _told(
    settings: Settings,
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, datetime], str | None]:
    from redis import Redis  # noqa: PLC0415  # 0.25 s that other commands do not need
    from redis.exceptions import RedisError  # noqa: PLC0415  # likewise

    url = with_running_redis(settings).redis_url
    if url is None:
        return {}, {}, "nothing runs in this data folder"
    try:
        with Redis.from_url(
            url, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S, decode_responses=True
        ) as redis:
            return *_read(redis), None
    except (RedisError, OSError) as error:
        return {}, {}, f"Redis does not answer ({type(error).__name__})"


def _read(redis: "Redis") -> tuple[dict[str, list[dict[str, Any]]], dict[str, datetime]]:
    with redis.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hgetall(KEY_STATES)
        pipe.hgetall(KEYS_USED)
        (seconds, _), told, used = pipe.execute()
    documents = {worker: json.loads(said) for worker, said in told.items()}
    fresh = {
        said.get("name", worker): said["keys"]
        for worker, said in documents.items()
        if said["at"] > seconds - FRESH_S
    }
    return fresh, {name: datetime.fromisoformat(at) for name, at in used.items()}


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
