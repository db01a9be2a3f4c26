"""Redis, and the broker where that is another: is it there, does it keep what it is given, does it lose nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from producers.doctor.checks import Check, note, ok, wrong
from producers.doctor.servers import clocks, way_to
from producers.limits_reader import START_REDIS
from producers.redis_address import with_running_redis
from promptmill.broker import celery_app, reach
from promptmill.logs import scrub
from promptmill.routes import BEAT_LOCK
from promptmill.settings import Settings

PATIENCE_S = 5.0
OLDEST = (6, 2)
"""What the scripts of the limiter and the transport need."""
NEARLY_FULL = 0.8
VISIBILITY_S = 3600.0
"""Kombu's own default, where a redelivery is on and says no other."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a Redis says of itself; a field is empty where it does not say (an ACL may forbid it)."""

    info: Mapping[str, Any]
    ahead: float

    @property
    def version(self) -> tuple[int, ...]:
        """Of Redis or Valkey; empty when not said."""
        said = str(self.info.get("valkey_version") or self.info.get("redis_version") or "")
        return tuple(int(part) for part in said.split(".")[:3] if part.isdigit())


def redis(settings: Settings) -> list[Check]:
    """The Redis of the limiter."""
    found = with_running_redis(settings)
    if found.redis_url is None:
        return [ok("redis", "embedded; `run` and `up` start it, nothing uses it now")]
    embedded = settings.redis_url is None
    where = "embedded, running" if embedded else scrub(found.redis_url)
    way = [] if embedded else way_to("redis", found.redis_url)
    try:
        facts = _ask(found.redis_url)
    except Exception as error:  # noqa: BLE001  # whatever it is, the person must hear it
        return [wrong("redis", f"{where}: {reason(error)}", START_REDIS), *way]
    return [ok("redis", where), *judge(facts, embedded=embedded), *way]


def broker(settings: Settings) -> list[Check]:
    """Another broker for the ids, and whether any broker gives a call out twice."""
    url = settings.broker_url or with_running_redis(settings).redis_url
    if settings.broker_url is None:
        return [] if url is None else redelivery(celery_app(url).conf, settings.claude.total_timeout_s)
    where, way = scrub(settings.broker_url), way_to("broker", settings.broker_url)
    try:
        reach(settings.broker_url, patience_s=PATIENCE_S)
    except Exception as error:  # noqa: BLE001  # whatever it is, the person must hear it
        return [
            wrong("broker", f"{where}: {reason(error)}", "start it, or correct PROMPTMILL_BROKER_URL"),
            *way,
        ]
    conf = celery_app(url or settings.broker_url, settings.broker_url).conf
    return [ok("broker", where), *way, *redelivery(conf, settings.claude.total_timeout_s)]


def judge(facts: Facts, *, embedded: bool) -> list[Check]:
    """What of a Redis's own words is well, and what is not."""
    checks = [_version(facts), _eviction(facts.info.get("maxmemory_policy")), *_memory(facts.info)]
    if not embedded:  # ours is started as it must be
        checks += [*_persistence(facts.info), clocks("redis", timedelta(seconds=facts.ahead))]
    return [check for check in checks if check is not None]


def redelivery(conf: Any, longest_call_s: float) -> list[Check]:
    """A broker that takes an unacknowledged message for lost sends it again, while its call goes on.

    With our celeryconfig nothing is: ids are acknowledged as their jobs start.
    """
    options: Mapping[str, Any] = conf.broker_transport_options or {}
    if not conf.task_acks_late and not options.get("ack_emulation", False):
        return []
    patience = float(options.get("visibility_timeout", VISIBILITY_S))
    if patience > longest_call_s:
        return [ok("visibility timeout", f"{patience:,.0f} s, longer than the longest call")]
    found = f"{patience:,.0f} s, and a call may take {longest_call_s:,.0f} s"
    advice = "take task_acks_late and ack_emulation out of celeryconfig.py, or raise visibility_timeout"
    return [wrong("visibility timeout", found, advice)]


def beat_is_alive(settings: Settings) -> bool | None:
    """Whether some beat holds the lock; None where Redis cannot say."""
    from redis import Redis  # noqa: PLC0415  # 0.25 s that other commands do not need
    from redis.exceptions import RedisError  # noqa: PLC0415  # likewise

    url = with_running_redis(settings).redis_url
    if url is None:
        return False
    try:
        with Redis.from_url(url, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S) as client:
            return bool(client.exists(BEAT_LOCK))
    except (RedisError, OSError):
        return None


def reason(error: Exception) -> str:
    """An error in words that hold no password."""
    return scrub(str(error)) or type(error).__name__


def _ask(url: str) -> Facts:
    from redis import Redis  # noqa: PLC0415  # 0.25 s that other commands do not need
    from redis.exceptions import NoPermissionError  # noqa: PLC0415  # likewise

    with Redis.from_url(
        url, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S, decode_responses=True
    ) as client:
        client.ping()
        info: dict[str, Any] = {}
        try:
            for section in ("server", "memory", "persistence"):
                info |= client.info(section)
        except NoPermissionError:  # least privilege: then it cannot be judged from here
            pass
        began = datetime.now(UTC).timestamp()
        seconds, micros = client.time()
        here = (began + datetime.now(UTC).timestamp()) / 2
        return Facts(info, seconds + micros / 1e6 - here)


def _version(facts: Facts) -> Check | None:
    if not facts.version:
        return None
    said = ".".join(map(str, facts.version))
    if facts.version >= OLDEST:
        return ok("redis version", said)
    return wrong("redis version", said, f"take Redis {'.'.join(map(str, OLDEST))} or newer, or Valkey")


def _eviction(policy: object) -> Check:
    name = "redis maxmemory-policy"
    if policy in (None, "noeviction"):
        return ok(name, str(policy or "not said by this server"))
    advice = "CONFIG SET maxmemory-policy noeviction: an evicted limit or message is silent loss"
    return wrong(name, str(policy), advice)


def _memory(info: Mapping[str, Any]) -> list[Check]:
    most, used = int(info.get("maxmemory") or 0), int(info.get("used_memory") or 0)
    if not most:
        return []
    found = f"{used / 1e6:,.0f} of {most / 1e6:,.0f} MB used"
    if used < NEARLY_FULL * most:
        return [ok("redis memory", found)]
    return [
        wrong("redis memory", found, "raise maxmemory: when it is full no id goes out and no limit is kept")
    ]


def _persistence(info: Mapping[str, Any]) -> list[Check]:
    name = "redis persistence"
    if "aof_enabled" not in info:
        return []
    for what in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"):
        if info.get(what, "ok") != "ok":
            return [
                wrong(name, f"{what} is {info[what]}", "see the log of Redis; most often its disk is full")
            ]
    if info["aof_enabled"]:
        return [ok(name, "append-only file")]
    advice = "appendonly yes: after a restart limits are learned anew, else (no job is lost)"
    return [note(name, "no append-only file", advice)]
