"""What estimates learn from: templates of batches, what was expected of them, and the newest answers of each."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("template", sa.String(), nullable=True),
        sa.Column("formula_tokens", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("formula_tokens_answered", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("estimated_input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("estimated_output_tokens", sa.BigInteger(), nullable=True),
    ):
        op.add_column("batch", column)
    op.create_index("batch_template", "batch", ["template", "created_at"])
    answered = sa.text("outcome = 'succeeded'")
    op.create_index(
        "attempt_answered",
        "attempt",
        ["batch_id", "model_group", "opened_at"],
        sqlite_where=answered,
        postgresql_where=answered,
    )
    op.execute(_SUM.format(column="formula_tokens", which=""))
    op.execute(_SUM.format(column="formula_tokens_answered", which="AND job.state = 'succeeded'"))


_SUM = """
    UPDATE batch SET {column} = (
        SELECT coalesce(sum(job.estimated_input_tokens), 0) FROM job WHERE job.batch_id = batch.id {which}
    )
"""
