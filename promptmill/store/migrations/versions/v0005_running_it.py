"""Recurring runs, notices of a batch's end, batches whose texts were deleted, and which calls ended last."""

import sqlalchemy as sa
from alembic import op

from promptmill.store.columns import UTCDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _make_schedules()
    _make_runs()
    for column in (
        sa.Column("notify_url", sa.Text(), nullable=True),
        sa.Column("notified_at", UTCDateTime(), nullable=True),
        sa.Column("notify_tries", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("notify_after", UTCDateTime(), nullable=True),
        sa.Column("purged_at", UTCDateTime(), nullable=True),
        sa.Column("notify_fault", sa.Text(), nullable=True),
    ):
        op.add_column("batch", column)
    _index("batch_notice", "batch", ["notify_after"], "notify_url IS NOT NULL AND notified_at IS NULL")
    _index("attempt_closed", "attempt", ["closed_at"], "closed_at IS NOT NULL")


def _make_schedules() -> None:
    op.create_table(
        "schedule",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("cron", sa.String(), nullable=True),
        sa.Column("every_s", sa.Integer(), nullable=True),
        sa.Column("timezone", sa.String(), nullable=False),
        sa.Column("missed", sa.String(), nullable=False),
        sa.Column("overlap", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("starts_at", UTCDateTime(), nullable=False),
        sa.Column("next_due", UTCDateTime(), nullable=True),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("changed_at", UTCDateTime(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="schedule_pkey"),
        sa.UniqueConstraint("name", name="schedule_name_key"),
    )
    _index("schedule_due", "schedule", ["next_due"], "state = 'active'")


def _make_runs() -> None:
    op.create_table(
        "schedule_run",
        sa.Column("schedule_id", sa.String(), nullable=False),
        sa.Column("due_at", UTCDateTime(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("manual", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("try_after", UTCDateTime(), nullable=True),
        sa.Column("batch_id", sa.String(), nullable=True),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("ended_at", UTCDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("schedule_id", "due_at", name="schedule_run_pkey"),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedule.id"], ondelete="CASCADE", name="schedule_run_schedule_id_fkey"
        ),
    )
    _index("schedule_run_open", "schedule_run", ["try_after"], "try_after IS NOT NULL")


def _index(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
