"""What the headers of a reply say: how much of each limit is left, and how long to wait.

Headers are a hint from outside: what cannot be read is taken as missing, never as an error. All names are
lower case here; the client lowers them once per reply.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from promptmill.dimensions import DIMENSIONS, Dimension, Headroom

Headers = Mapping[str, str]

REQUEST_ID = "request-id"
SIMULATOR = "x-promptmill-simulator"

#: Seconds. What a timer can hold; the official SDK cuts here too (claude-api.md, 6.3).
LONGEST_WAIT = 4_294_967.0

_NAMES = {
    f"{dimension.value}_{part}": f"anthropic-ratelimit-{dimension.value.replace('_', '-')}-{part}"
    for dimension in DIMENSIONS
    for part in ("limit", "remaining")
}
_FAST_NAMES = {
    field: name.replace("ratelimit", "fast") for field, name in _NAMES.items() if "tokens" in field
}
"""Fast mode counts tokens against limits of its own; a reply that names them is not told by the others."""


def read_headroom(headers: Headers) -> Headroom | None:
    """The `anthropic-ratelimit-*` headers (claude-api.md, 5.5); None when there is none to read.

    Where `anthropic-fast-*` stands beside them, that is what holds for the group of the call. A limit of zero
    is taken as missing: zero means "no limit" elsewhere.
    """
    fast = any(name in headers for name in _FAST_NAMES.values())
    facts: dict[str, float] = {}
    for field, name in (_NAMES | _FAST_NAMES if fast else _NAMES).items():
        value = _number(headers.get(name))
        if value is not None and (value > 0 or field.endswith("_remaining")):
            facts[field] = value
    if not fast:
        _narrow_to_workspace(facts, headers)
    return Headroom(**facts) if facts else None


def _narrow_to_workspace(facts: dict[str, float], headers: Headers) -> None:
    """Let a workspace's token limit stand for input, where it is the lower one.

    `anthropic-ratelimit-tokens-*` is the most restrictive token limit, or the sum of both. Above the output limit
    and below the input limit it can only be a workspace's, of input or of both; what output draws from it then
    looks like another program's use, which the limiter leaves to it. Any other figure does not tell what it counts.
    """
    limit = _number(headers.get("anthropic-ratelimit-tokens-limit"))
    remaining = _number(headers.get("anthropic-ratelimit-tokens-remaining"))
    if limit is None or remaining is None:
        return
    if facts.get("output_tokens_limit", limit) < limit < facts.get("input_tokens_limit", limit):
        facts |= {"input_tokens_limit": limit, "input_tokens_remaining": remaining}


def exhausted(headroom: Headroom | None) -> Dimension | None:
    """The first dimension with nothing left, as the headers say."""
    if headroom is None:
        return None
    return next((each for each in DIMENSIONS if headroom.remaining(each) == 0), None)


def read_retry_after(headers: Headers, *, now: datetime) -> float | None:
    """Seconds the server asks to wait; None when it did not say, or said nothing readable.

    `retry-after-ms` wins over `retry-after`, which is seconds or an HTTP date (claude-api.md, trap 13). A date
    is measured from the server's own `date` header, because two clocks rarely agree.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return min(milliseconds / 1000, LONGEST_WAIT)
    seconds = _number(headers.get("retry-after"))
    if seconds is not None:
        return min(seconds, LONGEST_WAIT)
    until = _date(headers.get("retry-after"))
    if until is None:
        return None
    wait = (until - (_date(headers.get("date")) or now)).total_seconds()
    return min(max(wait, 0.0), LONGEST_WAIT)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _date(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
