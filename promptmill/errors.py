"""Every error Promptmill raises on purpose, as one tree.

PromptmillError
├─ ConfigurationError            a setting is wrong; names the setting
├─ Unavailable                   Redis or the database cannot be reached just now
├─ InvalidInput                  a file, line or field of the user's is wrong
├─ NotFound                      no such batch, job, schedule …
├─ InvalidTransition             a state change that the state table does not allow
├─ LeaseLost                     a newer lease exists; the late writer changes nothing
├─ BudgetExceeded                no room left in a budget
├─ LimitReached                  a permit would come too late; says when to ask again
├─ RequestTooLarge               one call needs more than a bucket can ever hold
├─ NoUsableKey                   no credential is left to call with just now
├─ UnknownPrice                  a model's price is asked for and not known
└─ ClaudeError                   a call failed; what to do next is decided in `retries`
   ├─ PromptRejected             400 404 413 422: the prompt is at fault
   ├─ KeyRejected                401 403: the key is at fault
   ├─ SpendCapReached            402, a spend-limit 429 or 400: nobody can call until a person acts
   ├─ RateLimited                429: our pace is at fault
   ├─ Overloaded                 529 503: theirs, shared by everybody
   ├─ ServerFailed               408 409 5xx: theirs
   └─ ConnectionFailed           refused, reset, timed out, cut, malformed

Facts are keyword attributes with defaults, so that a rule can read them; the message is for people.
"""

from datetime import datetime
from pathlib import Path
from typing import ClassVar

from promptmill.dimensions import Dimension, Headroom
from promptmill.usage import Usage


class PromptmillError(Exception):
    """The root of everything raised on purpose."""


class ConfigurationError(PromptmillError):
    """A setting is missing or wrong; `setting` is the name a person can change."""

    def __init__(self, message: str, *, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


class Unavailable(PromptmillError):
    """A server we need (Redis, the database) cannot be reached just now; the same act may succeed later."""


class InvalidInput(PromptmillError):
    """One fault in what the user gave: where it is (file, line, field) and why it is one."""

    def __init__(
        self,
        why: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        place = ", ".join(
            part
            for part in (
                str(file) if file is not None else "",
                f"line {line}" if line is not None else "",
                f"field {field}" if field else "",
            )
            if part
        )
        super().__init__(f"{place}: {why}" if place else why)
        self.why = why
        self.file = file
        self.line = line
        self.field = field


class NotFound(PromptmillError):
    """What was asked for does not exist."""


class InvalidTransition(PromptmillError):
    """A state change that `states` does not allow."""


class LeaseLost(PromptmillError):
    """Somebody was granted the job since; the outcome of this holder is not written."""


class BudgetExceeded(PromptmillError):
    """A reservation does not fit into what is left of a budget."""


class LimitReached(PromptmillError):
    """The limiter cannot grant a permit within the time allowed; ask again after `retry_after` seconds."""

    def __init__(self, message: str, *, dimension: Dimension | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.dimension = dimension
        self.retry_after = retry_after


class RequestTooLarge(PromptmillError):
    """One call needs more of a dimension than its bucket can ever hold."""

    def __init__(self, message: str, *, dimension: Dimension | None = None) -> None:
        super().__init__(message)
        self.dimension = dimension


class NoUsableKey(PromptmillError):
    """Every key is missing, retired, or of an account that rests because of a spend limit.

    Attributes:
        brief: the same as the message in a few words, for the reason of a pause.
        resting: there is a key, but its account rests.
        everywhere: there is none for any model group, not only for the one that was asked for.
        until: when the first account comes back; None when nobody knows, or none rests.
        since: when the first of the resting accounts was refused; None where none rests.
        asking: one call is on its way to find out whether an account still has to rest.
        expecting: a key is being fetched, so that there may soon be one.
    """

    def __init__(
        self,
        message: str,
        *,
        brief: str | None = None,
        resting: bool = False,
        everywhere: bool = True,
        until: datetime | None = None,
        since: datetime | None = None,
        asking: bool = False,
        expecting: bool = False,
    ) -> None:
        super().__init__(message)
        self.brief = brief or message
        self.expecting = expecting
        self.since = since
        self.asking = asking
        self.resting = resting
        self.everywhere = everywhere
        self.until = until


class UnknownPrice(PromptmillError):
    """No price is known for a model, and the caller cannot go on without one."""


class ClaudeError(PromptmillError):
    """A call to Claude failed.

    Attributes:
        kind: the class in one word, as it is stored and counted (`rate_limited`, `overloaded` …).
        status: the HTTP status; None when there was no answer.
        error_type: `error.type` of the body, an open list.
        error_code: `error.details.error_code` of the body; stable, unlike the message.
        request_id: Anthropic's `req_…`, for a support ticket.
        retry_after: seconds the server asks to wait; None when it did not say.
        usage: what was used before the failure, as far as it is known.
        headroom: what the headers said about the group's limits, where there were headers.
    """

    kind: ClassVar[str] = "failed"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        error_type: str | None = None,
        error_code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        usage: Usage | None = None,
        headroom: Headroom | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.error_code = error_code
        self.request_id = request_id
        self.retry_after = retry_after
        self.usage = usage
        self.headroom = headroom


class PromptRejected(ClaudeError):
    """400, 404, 413 or 422: the same prompt will be refused again."""

    kind = "prompt_rejected"


class KeyRejected(ClaudeError):
    """401, or 403 for a model: this key cannot make this call, another may."""

    kind = "key_rejected"


class SpendCapReached(ClaudeError):
    """A spend limit of the account: no call succeeds until it is lifted.

    `lifts_at` is when it lifts by itself, where the server said so; None where only a person can lift it.
    """

    kind = "spend_cap_reached"

    def __init__(self, message: str, *, lifts_at: datetime | None = None, **facts: object) -> None:
        super().__init__(message, **facts)  # type: ignore[arg-type]  # the facts of ClaudeError, passed on unchanged
        self.lifts_at = lifts_at


class RateLimited(ClaudeError):
    """429: the account's pace is too high; `dimension` names the limit where the server did.

    `ramp` is True for `ramp_limit_exceeded`, which says nothing about a bucket's level.
    """

    kind = "rate_limited"

    def __init__(
        self, message: str, *, dimension: Dimension | None = None, ramp: bool = False, **facts: object
    ) -> None:
        super().__init__(message, **facts)  # type: ignore[arg-type]  # the facts of ClaudeError, passed on unchanged
        self.dimension = dimension
        self.ramp = ramp


class Overloaded(ClaudeError):
    """529, 503, or `overloaded_error` inside a stream: their load, not our pace."""

    kind = "overloaded"


class ServerFailed(ClaudeError):
    """408, 409 or another 5xx."""

    kind = "server_failed"


class ConnectionFailed(ClaudeError):
    """No complete answer arrived: refused, reset, timed out, cut, malformed.

    `sent` is False when the request cannot have reached Claude, so nothing was billed.
    """

    kind = "connection_failed"

    def __init__(self, message: str, *, sent: bool = True, **facts: object) -> None:
        super().__init__(message, **facts)  # type: ignore[arg-type]  # the facts of ClaudeError, passed on unchanged
        self.sent = sent
