"""Budgets that hold whatever dies, why a batch is paused and until when, and failures that a person forgave."""

import sqlalchemy as sa
from alembic import op

from promptmill.store.columns import UTCDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("unknown_nanos", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("paused_by", sa.String(), nullable=True),
        sa.Column("resume_at", UTCDateTime(), nullable=True),
        sa.Column("resumed_at", UTCDateTime(), nullable=True),
    ):
        op.add_column("batch", column)
    op.add_column("job", sa.Column("forgiven", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.execute(_FILL_IN)
    op.execute("UPDATE batch SET paused_by = 'person' WHERE state = 'paused'")


_FILL_IN = """
    UPDATE batch SET unknown_nanos = (
        SELECT coalesce(sum(reserved_nanos), 0) FROM attempt
        WHERE attempt.batch_id = batch.id AND outcome <> 'open' AND cost_nanos IS NULL
    )
    WHERE unpriced_attempts > 0
"""
