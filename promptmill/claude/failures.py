"""The one place where a failed call becomes an error of ours.

Wording is unstable, so the class follows from the status, `error.type` and `error.details.error_code`
(claude-api.md, 5.3, 5.6 and 6). Text is only asked where the API gives nothing else: to tell a blocked
account from a bad prompt, and to name the dimension of a 429.

Messages are for people and may be logged. They hold Anthropic's own words, cut short, and never the body of
something that is not the API: a gateway may send the prompt back.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from promptmill.claude.headers import REQUEST_ID, Headers, exhausted, read_headroom, read_retry_after
from promptmill.dimensions import Dimension, Headroom
from promptmill.errors import (
    ClaudeError,
    ConnectionFailed,
    KeyRejected,
    Overloaded,
    PromptRejected,
    RateLimited,
    ServerFailed,
    SpendCapReached,
)
from promptmill.usage import Usage

#: Characters of a message that are kept.
LONGEST_MESSAGE = 500

#: Characters of `error.type` and `error_code` that are kept: they are words, and the store has them in an index.
LONGEST_WORD = 100

OVERLOADED_STATUS = 529

_BY_STATUS: dict[int, type[ClaudeError]] = {
    401: KeyRejected,
    402: SpendCapReached,
    403: KeyRejected,
    408: ServerFailed,
    409: ServerFailed,
    429: RateLimited,
    503: Overloaded,
    OVERLOADED_STATUS: Overloaded,
}

#: An `error` event arrives after a 200; this is the status it would have had.
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": OVERLOADED_STATUS,
}

#: Codes that mean: nobody can call with this account until a person acts.
_BLOCKED_CODES = {"enforced_spend_limit_reached", "contract_spend_limit_reached", "organization_on_hold"}

#: The same, as a 400 without a code: limits the account set for itself (claude-api.md, 5.3), no prepaid credit
#: left, account disabled (both as people reported them in 2026).
_BLOCKED_TEXT = re.compile(
    r"You have reached your specified (workspace )?API usage limits"
    r"|Your credit balance is too low"
    r"|This organization has been disabled"
)

#: Without an error object of the API these say that the address is wrong, not the prompt.
_WRONG_ADDRESS = {404, 405, 407}

#: A monthly limit lifts at 00:00 UTC on the 1st of the next month (claude-api.md, 5.3), said so or not.
_MONTHLY_CODE = "enforced_spend_limit_reached"
_NEXT_MONTH = re.compile(r"\bfirst day of (the )?next month\b", re.IGNORECASE)
_MOMENT = re.compile(r"\b(\d{4}-\d{2}-\d{2})(?:(?:T| at | )(\d{2}:\d{2}))?")

_DIMENSION_TEXT = re.compile(r"\b(requests|input tokens|output tokens) per \w+", re.IGNORECASE)
_TITLE = re.compile(r"<title>\s*([^<]{1,80}?)\s*</title>", re.IGNORECASE)
_SECRETS = re.compile(r"sk-ant-[\w-]+|(?<=//)[^/@\s'\"]+(?=@)")


@dataclass(frozen=True, slots=True)
class Problem:
    """The `error` object of the API; `spoken` is False when the body held none."""

    spoken: bool
    type: str | None = None
    code: str | None = None
    message: str = ""
    request_id: str | None = None


def from_response(status: int, headers: Headers, body: str, *, now: datetime) -> ClaudeError:
    """The error of an answer whose status is not 200."""
    problem = _problem_of(body)
    kind = _kind(status, problem)
    if problem.spoken:
        message = f"{status} {problem.type or 'error'}: {problem.message}"
    else:
        message = f"{status} {_phrase(status)}, not in the words of the Claude API{_title(body)}"
        if kind is ConnectionFailed:
            message += "; is ANTHROPIC_BASE_URL right?"
    return _build(
        kind,
        message,
        problem=problem,
        headers=headers,
        status=status,
        retry_after=read_retry_after(headers, now=now),
        lifts_at=_lifts_at(problem, now) if kind is SpendCapReached else None,
    )


def from_event(event: Mapping[str, Any], headers: Headers, *, usage: Usage | None) -> ClaudeError:
    """The error of an `error` event inside a stream whose status was 200 (claude-api.md, 4.2)."""
    problem = _problem_in(event)
    kind = _kind(_STATUS_OF_TYPE.get(problem.type or "", 500), problem)
    message = f"{problem.type or 'error'} inside the stream: {problem.message}"
    return _build(kind, message, problem=problem, headers=headers, status=200, usage=usage)


def cause_of(error: BaseException) -> str:
    """What broke an exchange off, in words: what the HTTP library wrapped is named, not the wrapper.

    Only the system's own errors are quoted; what a parser complains of holds pieces of the answer. The
    exception itself is not chained anywhere: it holds the request, and with it the key.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return clean(f"{type(cause).__name__}: {cause}")
        cause = cause.__cause__
    if error.__cause__ is not None:
        return type(error.__cause__).__name__
    status = getattr(error, "status", None)  # a proxy's, where one refused
    return f"{type(error).__name__} {status}" if status else type(error).__name__


def no_answer(
    why: str, headers: Headers | None = None, *, usage: Usage | None = None, sent: bool = True
) -> ConnectionFailed:
    """No complete answer arrived: refused, reset, cut, malformed, too late."""
    headers = headers or {}
    return ConnectionFailed(
        clean(f"no complete answer: {why}"),
        status=200 if headers else None,
        request_id=headers.get(REQUEST_ID),
        usage=usage,
        headroom=read_headroom(headers),
        sent=sent,
    )


def clean(text: str) -> str:
    """A message without keys and passwords, at most `LONGEST_MESSAGE` characters long."""
    return _SECRETS.sub("***", text)[:LONGEST_MESSAGE]


def _kind(status: int, problem: Problem) -> type[ClaudeError]:
    if problem.code in _BLOCKED_CODES or (
        status == HTTPStatus.BAD_REQUEST and _BLOCKED_TEXT.match(problem.message)
    ):
        return SpendCapReached
    if problem.type == "overloaded_error":
        return Overloaded
    if status < HTTPStatus.BAD_REQUEST or (status in _WRONG_ADDRESS and not problem.spoken):
        return ConnectionFailed
    fallback = ServerFailed if status >= HTTPStatus.INTERNAL_SERVER_ERROR else PromptRejected
    return _BY_STATUS.get(status, fallback)


def _build(
    kind: type[ClaudeError],
    message: str,
    *,
    problem: Problem,
    headers: Headers,
    status: int,
    retry_after: float | None = None,
    usage: Usage | None = None,
    lifts_at: datetime | None = None,
) -> ClaudeError:
    headroom = read_headroom(headers)
    facts: dict[str, Any] = {
        "status": status,
        "error_type": problem.type,
        "error_code": problem.code,
        "request_id": headers.get(REQUEST_ID) or problem.request_id,
        "retry_after": retry_after,
        "usage": usage,
        "headroom": headroom,
    }
    if kind is RateLimited:
        ramp = problem.code == "ramp_limit_exceeded"
        facts |= {"ramp": ramp, "dimension": None if ramp else _dimension(problem.message, headroom)}
    if kind is SpendCapReached:
        facts["lifts_at"] = lifts_at
    return kind(clean(message), **facts)


def _lifts_at(problem: Problem, now: datetime) -> datetime | None:
    """When a spend limit lifts by itself: the moment that is named, or the 1st of next month; UTC."""
    for day, time in _MOMENT.findall(problem.message):
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(f"{day}T{time or '00:00'}").replace(tzinfo=UTC)
    if problem.code == _MONTHLY_CODE or _NEXT_MONTH.search(problem.message):
        today = now.astimezone(UTC).date()
        first = (today.replace(day=1) + timedelta(days=31)).replace(day=1)
        return datetime(first.year, first.month, first.day, tzinfo=UTC)
    return None


def _dimension(message: str, headroom: Headroom | None) -> Dimension | None:
    named = _DIMENSION_TEXT.search(message)
    if named is None:
        return exhausted(headroom)
    return Dimension(named[1].lower().replace(" ", "_"))


def _problem_of(body: str) -> Problem:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return Problem(spoken=False)
    return _problem_in(value)


def _problem_in(value: object) -> Problem:
    error = value.get("error") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(error, Mapping):
        return Problem(spoken=False)
    details = error.get("details")
    return Problem(
        spoken=True,
        type=_word(error.get("type")),
        code=_word(details.get("error_code")) if isinstance(details, Mapping) else None,
        message=_text(error.get("message")) or "",
        request_id=_text(value.get("request_id")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _word(value: object) -> str | None:
    return value[:LONGEST_WORD] if isinstance(value, str) else None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "without a name"


def _title(body: str) -> str:
    title = _TITLE.search(body)
    return f' ("{title[1]}")' if title else ""
