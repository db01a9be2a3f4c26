"""Traces as values: what a job went through, from its submission to its outcome, as spans with times and facts.

The idea: everything follows from the id of the job: whether it is traced, the id of its trace, and the span that holds
the others. So nothing is carried in messages or rows, workers agree without a word, and a job that is not traced costs
a look at a variable. Whoever speaks OpenTelemetry makes its spans of these (`workers/spans.py`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from promptmill.ids import time_of
from promptmill.usage import Usage

LOADED: Final = "loaded"
PERMITTED: Final = "permitted"
BEGUN: Final = "begun"
CLOSED: Final = "closed"
"""The marks of a job's way: its prompt is there, it may call, its attempt is open, its call is over."""

ROOT: Final = -1
"""The parent of spans that stand directly in that of the whole job."""

Facts = Mapping[str, Any]


def trace_id_of(job_id: str) -> int:
    """128 bits, the same in every process."""
    return int.from_bytes(_digest(job_id)[:16]) or 1


def root_id_of(job_id: str, forgiven: int = 0) -> int:
    """64 bits: the id of the span that holds all others of the job since a person had it tried anew, if one did.

    `forgiven` is the number of the last attempt before that.
    """
    return int.from_bytes(_digest(f"{job_id}:{forgiven}" if forgiven else job_id)[16:24]) or 1


def is_traced(job_id: str, share: float) -> bool:
    """Whether a job belongs to the share that is traced, from 0 to 1."""
    return int.from_bytes(_digest(job_id)[24:]) < share * 2**64


def _digest(job_id: str) -> bytes:
    return sha256(job_id.encode()).digest()


@dataclass(slots=True)
class JobTrace:
    """What one worker saw of one dispatch of a job. Times are nanoseconds since 1970 by this machine's clock."""

    job_id: str
    dispatch: int
    began: int
    now: Callable[[], int] = time.time_ns
    marks: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def root_id(self) -> int:
        """The id of the span that holds those of this dispatch."""
        return root_id_of(self.job_id, self.facts.get("forgiven", 0))


_current: ContextVar[JobTrace | None] = ContextVar("promptmill_trace", default=None)


def begin(trace: JobTrace) -> None:
    """Have marks of this task belong to a trace from here on."""
    _current.set(trace)


def mark(name: str, **facts: Any) -> None:
    """The job has come this far; nothing where it is not traced."""
    trace = _current.get()
    if trace is not None:
        trace.marks[name] = trace.now()
        trace.facts.update(facts)


def note(**facts: Any) -> None:
    """What is known of the job by now; nothing where it is not traced."""
    trace = _current.get()
    if trace is not None:
        trace.facts.update(facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One stretch of a job's way.

    Attributes:
        parent: where in the list its parent stands, or ROOT; None for the span of the whole job.
        error: the kind of a failure; None where there was none.
        calls: whether it is a call to another service.
    """

    name: str
    start: int
    end: int
    parent: int | None
    facts: Facts = field(default_factory=dict)
    error: str | None = None
    calls: bool = False


def spans_of(trace: JobTrace, *, ended: int, state: str, is_over: bool, why: str | None = None) -> list[Span]:
    """The spans of one dispatch, parents before children; that of the whole job last, where its outcome is known.

    `state` is that of the job, `is_over` whether this worker brought it there; `why` names what went wrong.
    """
    ids = {"promptmill.job.id": trace.job_id, "promptmill.batch.id": trace.facts.get("batch_id")}
    error = state if state in _FAILED else None
    submitted = min(time_of(trace.job_id) or trace.began, trace.began)
    facts = {
        **ids,
        "promptmill.dispatch": trace.dispatch,
        "promptmill.job.state": state,
        "promptmill.why": why,
    }
    dispatch = _span("promptmill.dispatch", trace.began, ended, ROOT, facts=facts, error=error)
    spans = [dispatch]
    if trace.dispatch == 1:
        spans.append(_span("promptmill.wait", submitted, trace.began, ROOT, facts=ids))
    spans += _stretches(trace, ended)
    if is_over:
        facts = {**ids, "promptmill.job.state": state}
        spans.append(_span("promptmill.job", submitted, ended, None, facts=facts, error=error))
    return spans


def _span(
    name: str,
    start: int,
    end: int,
    parent: int | None,
    *,
    facts: Facts | None = None,
    error: str | None = None,
) -> Span:
    return Span(name=name, start=start, end=end, parent=parent, facts=facts or {}, error=error)


_FAILED = ("errored", "expired", "broken")


def _stretches(trace: JobTrace, ended: int) -> Sequence[Span]:
    """Waiting for a permit, the call, and the writing down, as far as they came."""
    marks, spans = trace.marks, []
    if LOADED in marks:
        end = marks.get(PERMITTED, ended)
        spans.append(_span("promptmill.permit", marks[LOADED], end, 0))
    if BEGUN in marks:
        spans.append(_attempt(trace, marks[BEGUN], marks.get(CLOSED, ended)))
    if CLOSED in marks:
        spans.append(_span("promptmill.store", marks[CLOSED], ended, 0))
    return spans


def _attempt(trace: JobTrace, start: int, end: int) -> Span:
    """Named and described as OpenTelemetry's conventions for generative AI have it."""
    facts = trace.facts
    usage = facts.get("usage")
    return Span(
        name=f"chat {facts.get('model')}",
        start=start,
        end=end,
        parent=0,
        facts={
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": facts.get("model"),
            **(_tokens(usage) if usage else {}),
            "http.response.status_code": facts.get("status"),
            "error.type": facts.get("kind"),
            "promptmill.attempt": facts.get("attempt"),
            "promptmill.account": facts.get("account"),
            "promptmill.key.label": facts.get("key"),
            "promptmill.request.id": facts.get("request_id"),
            "promptmill.stop_reason": facts.get("stop_reason"),
        },
        error=facts.get("kind"),
        calls=True,
    )


def _tokens(usage: Usage) -> Facts:
    """The conventions count what was read from or written to the cache as input, too."""
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens + usage.cache_write_tokens + usage.cache_read_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
    }
