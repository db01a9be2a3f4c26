"""Counts that are kept and not counted: failed attempts by outcome, answers by stop reason, failed jobs by their error.

Kind to a large Postgres, as 0002: columns and index come first, the index beside the work and outside of any
transaction, and may be there already after an interruption. Then everything is counted, once, and only then `batch`,
which the new table refers to, is locked for a moment.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from promptmill.store.columns import json_text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        with op.get_context().autocommit_block():
            _add_columns(if_not_exists=True)
            _drop_half_an_index()
            _index_failures(postgresql_concurrently=True, if_not_exists=True)
    else:
        _add_columns()
        _index_failures()
    for statement in (_SAID, _COUNT):
        op.execute(statement)
    failed = op.get_bind().execute(sa.text(_FAILED)).all()
    table = op.create_table(
        "batch_count",
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("word", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "what", "word", name="batch_count_pkey"),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batch.id"], ondelete="CASCADE", name="batch_count_batch_id_fkey"
        ),
    )
    op.execute("INSERT INTO batch_count SELECT * FROM counted")
    op.execute("DROP TABLE counted")
    op.bulk_insert(
        table,
        [
            {"batch_id": batch_id, "what": "failed", "word": json_text(said), "number": number}
            for batch_id, *said, number in failed
        ],
    )


def _add_columns(**how: Any) -> None:
    for name, kind in (("error_status", sa.Integer()), ("error_type", sa.Text()), ("error_code", sa.Text())):
        op.add_column("job", sa.Column(name, kind, nullable=True), **how)


def _drop_half_an_index() -> None:
    """What an interruption leaves: it is never used, and every write keeps it up."""
    half = sa.text("SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('job_failed') AND NOT indisvalid")
    if op.get_bind().execute(half).first() is not None:
        op.drop_index("job_failed", postgresql_concurrently=True)


def _index_failures(**how: Any) -> None:
    ended_badly = sa.text("state IN ('errored', 'expired')")
    op.create_index(
        "job_failed",
        "job",
        ["batch_id", "state", "error_kind", "error_status", "error_type", "error_code", "seq"],
        sqlite_where=ended_badly,
        postgresql_where=ended_badly,
        **how,
    )


_SAID = """
    UPDATE job SET error_status = said.status, error_type = said.error_type, error_code = said.error_code
    FROM attempt AS said
    WHERE job.state IN ('errored', 'expired', 'pending') AND said.job_id = job.id AND said.number = job.attempts
    AND said.outcome = job.error_kind
"""
_FAILED = """
    SELECT batch_id, state, error_kind, error_status, error_type, error_code, count(*)
    FROM job WHERE state IN ('errored', 'expired')
    GROUP BY batch_id, state, error_kind, error_status, error_type, error_code
"""
_COUNT = """
    CREATE TEMPORARY TABLE counted AS
    SELECT attempt.batch_id, 'outcome' AS what, outcome AS word, count(*) AS number
    FROM attempt JOIN batch ON batch.id = attempt.batch_id
    WHERE outcome NOT IN ('open', 'succeeded') GROUP BY attempt.batch_id, outcome
    UNION ALL
    SELECT found.batch_id, 'stop_reason', found.stop_reason, count(*)
    FROM (
        SELECT attempt.batch_id, attempt.stop_reason FROM attempt WHERE outcome = 'succeeded'
        UNION ALL
        SELECT attempt.batch_id, reply.stop_reason
        FROM attempt JOIN reply ON reply.attempt_id = attempt.id AND reply.job_id = attempt.job_id
        JOIN job ON job.id = reply.job_id
        WHERE attempt.outcome = 'truncated' AND job.state = 'succeeded'
    ) AS found JOIN batch ON batch.id = found.batch_id
    WHERE found.stop_reason NOT IN ('end_turn', 'stop_sequence', 'tool_use')
    GROUP BY found.batch_id, found.stop_reason
"""
