"""What was answered of late: the newest succeeded attempts of a batch, a template or a model group, to learn from.

A handful of short looks into one index, however many answers there are. Simulated answers and real ones teach
each other nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, text

from promptmill.experience import SAMPLE, Answered, Experience, of_batch, of_model, of_template
from promptmill.store.ledger import USAGE_COLUMNS
from promptmill.store.tables import ANSWERED, attempt, batch, job
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


def experience_above(conn: Connection, kind: Kind, *, but: str = "") -> Above:
    """What the answers to a template teach, over those of its model.

    Args:
        conn: a transaction that reads.
        kind: which answers.
        but: the id of a batch to leave out, because its own answers come on top.
    """
    model = of_model(each for each, _ in _newest_of_model(conn, kind))
    if kind.template is None:
        return Above(of_template(model, []), None)
    rows: list[_Answer] = []
    values = {"template": kind.template, "simulated": kind.simulated, "but": but}
    for batch_id in conn.scalars(_WITH_TEMPLATE, values).all():
        if len(rows) < SAMPLE:
            rows = _newest(conn, batch_id, kind.model_group, SAMPLE - len(rows)) + rows
    newest = max((closed_at for _, closed_at in rows), default=None)
    return Above(of_template(model, [each for each, _ in rows]), newest)


def experience_of(conn: Connection, batch_id: str, kind: Kind, above: Above, now: datetime) -> Experience:
    """What a batch's own answers teach, over what is known above it."""
    rows = _newest(conn, batch_id, kind.model_group, SAMPLE)
    newest = rows[-1][1] if rows else above.newest
    is_warm = newest is not None and now - newest < WARM
    return of_batch(above.experience, [each for each, _ in rows], is_warm=is_warm)


def experience_of_new(conn: Connection, kind: Kind) -> Experience:
    """What a batch that is not there yet would begin with."""
    return of_batch(experience_above(conn, kind).experience, [])


_Answer = tuple[Answered, datetime]

_NEWEST = (
    select(
        job.c.estimated_input_tokens,
        job.c.estimated_output_tokens,
        attempt.c.closed_at,
        *(attempt.c[name] for name in USAGE_COLUMNS),
    )
    .join_from(attempt, job, job.c.id == attempt.c.job_id)
    .where(
        text(ANSWERED),
        attempt.c.batch_id == bindparam("batch_id"),
        attempt.c.model_group == bindparam("model_group"),
    )
    .order_by(attempt.c.closed_at.desc())
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


def _newest_of_model(conn: Connection, kind: Kind) -> list[_Answer]:
    """A few answers of each of the newest batches, oldest first."""
    rows: list[_Answer] = []
    for batch_id in conn.scalars(_RECENT, {"simulated": kind.simulated}).all():
        if len(rows) < _MODEL_SAMPLE:
            rows = _newest(conn, batch_id, kind.model_group, _ANSWERS_OF_EACH) + rows
    return rows


def _newest(conn: Connection, batch_id: str, model_group: str, most: int) -> list[_Answer]:
    """The newest answers of a batch, oldest first."""
    values = {"batch_id": batch_id, "model_group": model_group, "most": most}
    rows: Sequence[Row[Any]] = conn.execute(_NEWEST, values).all()
    return [
        (Answered(by_formula, guessed, Usage(**dict(zip(USAGE_COLUMNS, used, strict=True)))), closed_at)
        for by_formula, guessed, closed_at, *used in reversed(rows)
    ]
