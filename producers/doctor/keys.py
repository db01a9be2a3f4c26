"""The keys: are there any, can they be read, by us alone, and do they end soon. Nothing is fetched, none is shown."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from producers.doctor.checks import Check, note, ok, wrong
from producers.key_files import is_open_to_others
from promptmill.errors import PromptmillError
from promptmill.settings import REAL_API, Settings

if TYPE_CHECKING:
    from producers.keys import KeyNow
    from promptmill.claude.keys.sources import KeySource

SOON = timedelta(days=7)


def keys(settings: Settings) -> list[Check]:
    """The keys that the settings name."""
    from promptmill.claude.keys import declared_keys  # noqa: PLC0415  # 0.4 s of imports

    claude = settings.claude
    try:
        sources = declared_keys(claude.api_key, claude.keys_file, api_key_file=claude.api_key_file)
    except PromptmillError as error:
        return [wrong("key", str(error), "correct the setting it names")]
    if not sources:
        return [_none(settings)]
    found = ", ".join(f"{each.label} (account {each.account})" for each in sources)
    said = [check for each in sources for check in _read(each)]
    files = [path for path in (claude.keys_file, *(each.path for each in sources)) if path is not None]
    return [
        *([] if any(check.name == "key" for check in said) else [ok("key", found)]),
        *said,
        *(check for each in dict.fromkeys(files) for check in judge_mode(each)),
        *judge_ends(sources, datetime.now(UTC)),
        *_idle_entries(settings, [each.account for each in sources]),
    ]


def keys_at_work(settings: Settings) -> list[Check]:
    """The same as workers find them when they call: of a key that is refused, only they know."""
    from producers.keys import list_keys  # noqa: PLC0415  # it asks Redis

    return judge_told(list_keys(settings=settings).keys)


def judge_told(told: "Sequence[KeyNow]") -> list[Check]:
    """Keys that no worker can call with are wrong; those that some cannot are worth a look."""
    said = []
    for key in told:
        if not key.workers or key.state in ("usable", "resting"):
            if key.usable_at and key.not_usable_at:
                where = ", ".join(sorted(key.not_usable_at))
                found = f"not usable at {len(key.not_usable_at)} of the workers ({where})"
                said.append(note(f"key {key.label}", found, "promptmill keys says why"))
            continue
        found = f"{key.state} at every worker that has it" + (f": {key.why}" if key.why else "")
        advice = "put a valid one in its place; workers take it up by themselves"
        said.append(wrong(f"key {key.label}", found, advice))
    return said


def judge_ends(sources: "Sequence[KeySource]", now: datetime) -> list[Check]:
    """Keys that have ended, or will within a week. One that is fetched is renewed by itself."""
    said = []
    for each in sources:
        if each.expires_at is None or each.kind.is_fetched or each.expires_at - now > SOON:
            continue
        when = f"{each.expires_at:%Y-%m-%d %H:%M} UTC"
        name, advice = f"key {each.label}", "put a new one in its place; workers take it up by themselves"
        if each.expires_at <= now:
            said.append(wrong(name, f"ended {when}", advice))
        else:
            said.append(note(name, f"ends {when}", advice))
    return said


def judge_mode(file: Path) -> list[Check]:
    """Whether others on this machine may read it."""
    if not is_open_to_others(file):
        return []
    return [note("key file", f"others on this machine may read {file}", f"chmod 600 {file}")]


def _read(source: "KeySource") -> list[Check]:
    if source.kind.is_fetched:
        return []
    try:
        source.read()
    except PromptmillError as error:
        return [wrong("key", str(error), "correct the setting it names")]
    return []


def _none(settings: Settings) -> Check:
    if settings.claude.base_url == REAL_API:
        return note(
            "key", "none", "set ANTHROPIC_API_KEY to call Claude; until then `run` uses the simulated one"
        )
    return note("key", "none", "set ANTHROPIC_API_KEY unless a simulator is meant")


def _idle_entries(settings: Settings, accounts: Sequence[str]) -> list[Check]:
    found = f"no key belongs to this account; there are: {', '.join(dict.fromkeys(accounts))}"
    advice = "correct its name in promptmill.toml: nothing follows these limits"
    return [note(f"limits.accounts.{name}", found, advice) for name in settings.limits.not_among(accounts)]
