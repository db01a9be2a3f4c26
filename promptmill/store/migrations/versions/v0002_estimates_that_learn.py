"""What estimates learn from: templates of batches, what was expected of them, and the newest answers of each.

Kind to a large Postgres. First the index, beside the work and outside of any transaction: after an interruption it
is made anew, or kept if it is whole. Then all jobs are counted, once, and only then `batch` is locked, for the moment
that its columns take.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        with op.get_context().autocommit_block():
            _drop_half_an_index()
            _index_answers(postgresql_concurrently=True, if_not_exists=True)
    else:
        _index_answers()
    op.execute(_COUNT)
    for column in (
        sa.Column("template", sa.String(), nullable=True),
        sa.Column("formula_tokens", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("formula_tokens_answered", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("estimated_input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("estimated_output_tokens", sa.BigInteger(), nullable=True),
    ):
        op.add_column("batch", column)
    op.create_index("batch_template", "batch", ["template", "created_at"])
    op.execute(_FILL_IN)
    op.execute("DROP TABLE counted")


def _drop_half_an_index() -> None:
    """What an interruption leaves: it is never used, and every write keeps it up."""
    half = sa.text(
        "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('attempt_answered') AND NOT indisvalid"
    )
    if op.get_bind().execute(half).first() is not None:
        op.drop_index("attempt_answered", postgresql_concurrently=True)


def _index_answers(**how: Any) -> None:
    answered = sa.text("outcome = 'succeeded'")
    op.create_index(
        "attempt_answered",
        "attempt",
        ["batch_id", "model_group", "opened_at"],
        sqlite_where=answered,
        postgresql_where=answered,
        **how,
    )


_COUNT = """
    CREATE TEMPORARY TABLE counted AS
    SELECT batch_id,
        coalesce(sum(estimated_input_tokens), 0) AS expected,
        coalesce(sum(estimated_input_tokens) FILTER (WHERE state = 'succeeded'), 0) AS answered
    FROM job GROUP BY batch_id
"""
_FILL_IN = """
    UPDATE batch SET formula_tokens = counted.expected, formula_tokens_answered = counted.answered
    FROM counted WHERE counted.batch_id = batch.id
"""
