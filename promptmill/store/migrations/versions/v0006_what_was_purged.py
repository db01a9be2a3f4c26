"""How many calls rehearsals made that were purged of everything, so that the audit of others can allow for them."""

import sqlalchemy as sa
from alembic import op

from promptmill.store.columns import UTCDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "purged_batch",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="purged_batch_pkey"),
    )
