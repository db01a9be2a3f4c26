"""What was answered of late: the newest succeeded attempts of a batch, a template or a model group, to learn from.

A handful of short looks into one index, however many answers there are. Simulated answers and real ones teach
each other nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select, text

from promptmill.experience import SAMPLE, Answered, Experience, of_batch, of_model, of_template
from promptmill.store.columns import UTCDateTime
from promptmill.store.ledger import USAGE_COLUMNS
from promptmill.store.tables import ANSWERED, attempt, batch, job
from promptmill.store.tallies import MAX_TOKENS
from promptmill.usage import Usage

WARM = timedelta(minutes=4)
"""A cached prefix lives five minutes after it was last used (claude-api.md, 2.5); a minute less is sure."""

_BATCHES_OF_TEMPLATE = 4
_BATCHES_OF_MODEL = 20
_ANSWERS_OF_EACH = 20  # so that one large batch is not all that is known of a model
_MODEL_SAMPLE = 100


@dataclass(frozen=True, slots=True)
class Kind:
    """Which answers are alike: those to jobs of one model group, with what their batch has in common."""

    model_group: str
    simulated: bool
    template: str | None = None


@dataclass(frozen=True, slots=True)
class Above:
    """What is known beyond a batch; it changes slowly and may be kept for a while."""

    experience: Experience
    newest: datetime | None


def experience_above(conn: Connection, kind: Kind, now: datetime, *, but: str = "") -> Above:
    """What the answers to a template teach, over those of its model.

    Args:
        conn: a transaction that reads.
        kind: which answers.
        now: the time that answers are stamped with.
        but: the id of a batch to leave out, because its own answers come on top.
    """
    model = of_model(each.answered for each in _of_model(conn, kind, now))
    if kind.template is None:
        return Above(of_template(model, []), None)
    answers: list[_Answer] = []
    values = {"template": kind.template, "simulated": kind.simulated, "but": but}
    for batch_id in conn.scalars(_WITH_TEMPLATE, values).all():
        if len(answers) < SAMPLE:
            found = _settled(conn, batch_id, kind.model_group, now)
            answers = (found.settled or found.newest)[-(SAMPLE - len(answers)) :] + answers
    return Above(of_template(model, [each.answered for each in answers]), _last_closed(answers))


def experience_of(conn: Connection, batch_id: str, kind: Kind, above: Above, now: datetime) -> Experience:
    """What a batch's own answers teach, over what is known above it."""
    found = _settled(conn, batch_id, kind.model_group, now)
    last_closed = _last_closed(found.newest) or above.newest
    is_warm = last_closed is not None and now - last_closed < WARM
    answers = found.settled
    if len(answers) < _ENOUGH and above.experience.basis.template < _ENOUGH:
        answers = found.newest  # better than nothing
    return of_batch(above.experience, [each.answered for each in answers], is_warm=is_warm)


def experience_of_new(conn: Connection, kind: Kind, now: datetime) -> Experience:
    """What a batch that is not there yet would begin with."""
    return of_batch(experience_above(conn, kind, now).experience, [])


class _Answer(NamedTuple):
    answered: Answered
    opened_at: datetime
    closed_at: datetime


class _Found(NamedTuple):
    """Answers of a batch, in the order in which they were begun."""

    settled: list[_Answer]
    newest: list[_Answer]


_ENOUGH = 30
_LONG = 0.9
_MARGIN = 1.5
_LOOKS = 4

_NEWEST = (
    select(
        job.c.estimated_input_tokens,
        job.c.estimated_output_tokens,
        attempt.c.opened_at,
        attempt.c.closed_at,
        attempt.c.id,
        attempt.c.stop_reason,
        *(attempt.c[name] for name in USAGE_COLUMNS),
    )
    .join_from(attempt, job, job.c.id == attempt.c.job_id)
    .where(
        text(ANSWERED),
        attempt.c.batch_id == bindparam("batch_id"),
        attempt.c.model_group == bindparam("model_group"),
        attempt.c.opened_at <= bindparam("until", type_=UTCDateTime()),
    )
    .order_by(attempt.c.opened_at.desc())
    .limit(bindparam("most"))
)
_WITH_TEMPLATE = (
    select(batch.c.id)
    .where(
        batch.c.template == bindparam("template"),
        batch.c.simulated == bindparam("simulated"),
        batch.c.succeeded > 0,
        batch.c.id != bindparam("but"),
    )
    .order_by(batch.c.created_at.desc())
    .limit(_BATCHES_OF_TEMPLATE)
)
_RECENT = (
    select(batch.c.id)
    .where(batch.c.simulated == bindparam("simulated"), batch.c.succeeded > 0)
    .order_by(batch.c.created_at.desc())
    .limit(_BATCHES_OF_MODEL)
)


def _of_model(conn: Connection, kind: Kind, now: datetime) -> list[_Answer]:
    """A few answers of each of the newest batches, oldest first."""
    answers: list[_Answer] = []
    for batch_id in conn.scalars(_RECENT, {"simulated": kind.simulated}).all():
        if len(answers) < _MODEL_SAMPLE:
            answers = _newest(conn, batch_id, kind.model_group, now, most=_ANSWERS_OF_EACH) + answers
    return answers


def _settled(conn: Connection, batch_id: str, model_group: str, now: datetime) -> _Found:
    """The newest answers to calls that were begun so long ago that nearly all of their time have ended.

    Of the calls begun a moment ago only those with short answers are answered. What a call takes is seen from
    the answers themselves: looked at further back, they take longer, until they take no longer.
    """
    newest = found = _newest(conn, batch_id, model_group, now)
    until = now
    for _ in range(_LOOKS):
        if not found:
            break
        durations = sorted(each.closed_at - each.opened_at for each in found)
        until = now - _MARGIN * durations[int(_LONG * len(durations))]
        if found[-1].opened_at <= until:
            break
        found = _newest(conn, batch_id, model_group, until)
    return _Found([each for each in found if each.opened_at <= until], newest)


def _newest(
    conn: Connection, batch_id: str, model_group: str, until: datetime, *, most: int = SAMPLE
) -> list[_Answer]:
    """The answers to the last calls that a batch had begun until then, in the order of their beginning."""
    values = {"batch_id": batch_id, "model_group": model_group, "until": until, "most": most}
    found: Sequence[Any] = conn.execute(_NEWEST, values).all()
    # Calls begun at the same moment must come in no order that has to do with their end.
    rows = sorted(found, key=lambda row: (row.opened_at, row.id))
    return [
        _Answer(
            Answered(
                by_formula,
                guessed,
                Usage(**dict(zip(USAGE_COLUMNS, used, strict=True))),
                is_cut=stop_reason == MAX_TOKENS,
            ),
            opened_at,
            closed_at,
        )
        for by_formula, guessed, opened_at, closed_at, _, stop_reason, *used in rows
    ]


def _last_closed(answers: Sequence[_Answer]) -> datetime | None:
    return max((each.closed_at for each in answers), default=None)
