"""The keys in words: a table for people, a document for programs. Pure."""

import shlex
import textwrap
from datetime import datetime
from typing import Any

from producers.keys import UNTOLD, KeyNow, KeysNow
from producers.tables import columns
from producers.wording import duration, several
from producers.wrapping import WIDTH

NO_KEY = "no key is set; set ANTHROPIC_API_KEY, or PROMPTMILL_KEYS_FILE for several"
_SOON_S = 172_800.0
UNKNOWN = "nobody knows whether they work"
NO_WORKER = f"no worker runs, so {UNKNOWN}"


def keys_table(found: KeysNow, now: datetime) -> str:
    """One line a key, and below why one is not used."""
    head = ("LABEL", "ACCOUNT", "SOURCE", "STATE", "ENDS", "LAST USED", "CALLS")
    rows = [
        (
            key.label,
            key.account,
            key.source,
            _state(key),
            _ends(key, now),
            _used(key, now),
            f"{key.calls:,}" if key.workers else "",
        )
        for key in found.keys
    ]
    lines = [columns(head, rows, right=(6,))] if rows else [NO_KEY] * (found.fault is None)
    lines += [_wrapped(line) for key in found.keys for line in _reasons(key)]
    lines += [_wrapped(line) for line in _notices(found)]
    return "\n".join(lines)


def keys_document(found: KeysNow) -> dict[str, Any]:
    """The same for programs."""
    return {
        "keys": [_document(key) for key in found.keys],
        "workers": found.workers,
        "silence": found.silence,
        "fault": found.fault,
        "readable_by_others": [str(file) for file in found.readable_by_others],
    }


def _state(key: KeyNow) -> str:
    if key.state == UNTOLD:
        return "not told" if key.workers == 0 else key.state
    everybody = key.usable_at + len(key.not_usable_at)
    if 0 < key.usable_at < everybody:
        return f"usable at {key.usable_at} of {everybody}"
    if key.state == "usable" and key.refused_for:
        return "usable, not for all"
    return key.state


def _ends(key: KeyNow, now: datetime) -> str:
    if key.expires_at is None:
        return ""
    left = (key.expires_at - now).total_seconds()
    if left > _SOON_S:
        return f"{key.expires_at:%Y-%m-%d}"
    return f"in {duration(left)}" if left > 0 else "ended"


def _used(key: KeyNow, now: datetime) -> str:
    if key.used_at is None:
        return "never" if key.workers else ""
    return f"{duration(max(0.0, (now - key.used_at).total_seconds()))} ago"


def _reasons(key: KeyNow) -> list[str]:
    for_groups = [f"{key.label}, for {group}: {why}" for group, why in sorted(key.refused_for.items())]
    if key.usable_at and key.not_usable_at:
        at = [f"{key.label}, at {worker}: {why}" for worker, why in sorted(key.not_usable_at.items())]
        return at + for_groups
    if key.why is None:
        return for_groups
    until = f"until {key.until:%Y-%m-%d %H:%M} UTC: " if key.until else ""
    return [f"{key.label}: {until}{key.why}", *for_groups]


def _notices(found: KeysNow) -> list[str]:
    notices = [found.fault] if found.fault else []
    notices += [
        f"others on this machine may read {file}: chmod 600 {shlex.quote(str(file))}"
        for file in found.readable_by_others
    ]
    if any(key.simulated for key in found.keys):
        notices.append("a simulated Claude answers")
    if found.silence is not None and found.keys:
        notices.append(f"{UNKNOWN}: {found.silence}")
    elif found.keys and not found.workers:
        notices.append(NO_WORKER)
    elif found.workers and (alone := [key.label for key in found.keys if not key.workers]):
        notices.append(f"{several(found.workers, 'worker')} without: {', '.join(alone)}")
    return notices


def _wrapped(line: str) -> str:
    return textwrap.fill(line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _document(key: KeyNow) -> dict[str, Any]:
    return {
        "label": key.label,
        "account": key.account,
        "source": key.source,
        "simulated": key.simulated,
        "state": key.state,
        "why": key.why,
        "refused_for": dict(key.refused_for),
        "until": _text(key.until),
        "expires_at": _text(key.expires_at),
        "last_used_at": _text(key.used_at),
        "calls_lately": key.calls,
        "workers": key.workers,
        "usable_at": key.usable_at,
        "not_usable_at": dict(key.not_usable_at),
    }


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
