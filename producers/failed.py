"""What went wrong in a batch, for people: groups of failures with their advice, and answers that are not whole.

The one idea: a person reads a few lines however many jobs failed, each with one job to look at and what to do.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from producers.wording import several
from promptmill.advice import advice_for
from promptmill.retries import TRUNCATED
from promptmill.states import JobState
from promptmill.store import Connection
from promptmill.store import failures as stored
from promptmill.store.batches import BatchRow
from promptmill.store.failures import FailureGroup

_MESSAGE_LENGTH = 160
_NOT_WHOLE = {
    "refusal": ("is a refusal", "are refusals"),
    "max_tokens": ("was cut off at max_tokens", "were cut off at max_tokens"),
}


@dataclass(frozen=True, slots=True)
class Failures:
    """What went wrong in a batch so far.

    Attributes:
        groups: jobs that errored or expired, by what they failed of, the largest group first.
        not_whole: answers that ended otherwise than by being complete, by their stop reason.
    """

    groups: Sequence[FailureGroup] = ()
    not_whole: Mapping[str, int] = field(default_factory=dict)


def failures_of(connection: Connection, batch: BatchRow) -> Failures:
    """What went wrong; nothing is counted where the counters of the batch say that nothing did."""
    return Failures(
        groups=stored.groups(connection, batch.id) if batch.errored or batch.expired else (),
        not_whole=stored.stop_reasons(connection, batch.id) if batch.succeeded else {},
    )


def failure_lines(failures: Failures, batch: BatchRow) -> Iterator[str]:
    """What failed, one of them, and what to do; nothing when all is well."""
    for group in failures.groups:
        yield f"not answered: {group.jobs:,} {_name(group)}{_example(group)}"
        yield f"  do: {_for(batch, group.advice)}"
    if batch.canceled:
        yield f"not answered: {batch.canceled:,} canceled"
        yield f"  do: {_for(batch, advice_for('canceled'))}"
    for reason, count in failures.not_whole.items():
        one, many = _NOT_WHOLE.get(reason, (f"ended with {reason}",) * 2)
        yield f"{several(count, 'answer')} {one if count == 1 else many}"
        if reason in _NOT_WHOLE:
            kind = "cut_at_the_cap" if reason == "max_tokens" and TRUNCATED in batch.options else reason
            yield f"  do: {_for(batch, advice_for(kind))}"


def failures_document(failures: Failures) -> dict[str, Any]:
    """The same for programs: `errors` and `not_whole` of the document of `status`."""
    return {
        "errors": [
            {
                "jobs": group.jobs,
                "state": group.state.value,
                "kind": group.kind,
                "status": group.status,
                "type": group.type,
                "code": group.code,
                "custom_id": group.custom_id,
                "attempts": group.attempts,
                "message": group.message,
                "request_id": group.request_id,
                "advice": group.advice,
            }
            for group in failures.groups
        ],
        "not_whole": dict(failures.not_whole),
    }


def _name(group: FailureGroup) -> str:
    said = " ".join(str(word) for word in (group.status, group.type, group.code) if word is not None)
    if group.state is JobState.ERRORED:
        return group.kind + (f" ({said})" if said else "")
    return group.state.value + (f" after {group.kind}" if group.kind != group.state.value else "")


def _example(group: FailureGroup) -> str:
    if group.custom_id is None:
        return ""
    after = several(group.attempts, "attempt") + (f", {group.request_id}" if group.request_id else "")
    return f", as {group.custom_id} ({after})" + (f": {_shortened(group.message)}" if group.message else "")


def _shortened(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= _MESSAGE_LENGTH else f"{line[: _MESSAGE_LENGTH - 1]}…"


def _for(batch: BatchRow, advice: str) -> str:
    return advice.replace("BATCH", shlex.quote(batch.name))
