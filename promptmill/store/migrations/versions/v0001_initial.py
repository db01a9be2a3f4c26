"""The first tables: batch, job, prompt, reply, attempt, worker."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batch",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("lane", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("priority", sa.Float(), nullable=False),
        sa.Column("content_hash", sa.String(), nullable=True),
        sa.Column("deadline", _time(), nullable=True),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("succeeded", sa.Integer(), nullable=False),
        sa.Column("errored", sa.Integer(), nullable=False),
        sa.Column("canceled", sa.Integer(), nullable=False),
        sa.Column("expired", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_read_tokens", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("unpriced_attempts", sa.BigInteger(), nullable=False),
        sa.Column("cost_nanos", sa.BigInteger(), nullable=False),
        sa.Column("reserved_nanos", sa.BigInteger(), nullable=False),
        sa.Column("estimate_nanos", sa.BigInteger(), nullable=True),
        sa.Column("budget_nanos", sa.BigInteger(), nullable=True),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("sealed_at", _time(), nullable=True),
        sa.Column("started_at", _time(), nullable=True),
        sa.Column("ended_at", _time(), nullable=True),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("shared", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="batch_pkey"),
        sa.UniqueConstraint("name", name="batch_name_key"),
    )
    op.create_index("batch_created", "batch", ["created_at"])
    _partial_index("batch_served", "batch", ["state"], where="state IN ('active', 'paused', 'canceling')")

    op.create_table(
        "job",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("custom_id", sa.Text(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("model_group", sa.String(), nullable=False),
        sa.Column("estimated_input_tokens", sa.Integer(), nullable=False),
        sa.Column("estimated_output_tokens", sa.Integer(), nullable=False),
        sa.Column("dispatch", sa.Integer(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.String(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", _time(), nullable=True),
        sa.Column("queued_at", _time(), nullable=True),
        sa.Column("error_kind", sa.String(), nullable=True),
        sa.Column("changed_at", _time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="job_pkey"),
        sa.UniqueConstraint("batch_id", "custom_id", name="job_batch_id_custom_id_key"),
        sa.UniqueConstraint("batch_id", "seq", name="job_batch_id_seq_key"),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], ondelete="CASCADE", name="job_batch_id_fkey"),
    )
    _partial_index(
        "job_deferred",
        "job",
        ["batch_id", "model_group", "not_before"],
        where="state = 'pending' AND not_before IS NOT NULL",
    )
    _partial_index(
        "job_out",
        "job",
        ["batch_id", "state", "model_group"],
        where="state IN ('queued', 'running', 'submitted')",
    )
    _partial_index(
        "job_pending",
        "job",
        ["batch_id", "model_group", "seq"],
        where="state = 'pending' AND not_before IS NULL",
    )
    _partial_index("job_queued", "job", ["queued_at"], where="state = 'queued'")
    _partial_index("job_running", "job", ["worker_id"], where="state = 'running'")

    op.create_table(
        "prompt",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", name="prompt_pkey"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], ondelete="CASCADE", name="prompt_job_id_fkey"),
    )

    op.create_table(
        "reply",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("attempt_id", sa.String(), nullable=False),
        sa.Column("stop_reason", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("parsed", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="reply_pkey"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], ondelete="CASCADE", name="reply_job_id_fkey"),
    )

    op.create_table(
        "attempt",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.String(), nullable=False),
        sa.Column("key_label", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("model_group", sa.String(), nullable=False),
        sa.Column("lane", sa.String(), nullable=False),
        sa.Column("opened_at", _time(), nullable=False),
        sa.Column("closed_at", _time(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("stop_reason", sa.Text(), nullable=True),
        sa.Column("input_tokens", sa.Integer(), nullable=False),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        sa.Column("cache_write_5m_tokens", sa.Integer(), nullable=False),
        sa.Column("cache_write_1h_tokens", sa.Integer(), nullable=False),
        sa.Column("cache_read_tokens", sa.Integer(), nullable=False),
        sa.Column("web_searches", sa.Integer(), nullable=False),
        sa.Column("usage_raw", sa.Text(), nullable=True),
        sa.Column("cost_nanos", sa.BigInteger(), nullable=True),
        sa.Column("reserved_nanos", sa.BigInteger(), nullable=True),
        sa.Column("price_version", sa.String(), nullable=True),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="attempt_pkey"),
        sa.UniqueConstraint("job_id", "number", name="attempt_job_id_number_key"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], ondelete="CASCADE", name="attempt_job_id_fkey"),
    )
    _partial_index(
        "attempt_failed", "attempt", ["batch_id", "outcome"], where="outcome NOT IN ('open', 'succeeded')"
    )
    op.create_index("attempt_opened", "attempt", ["opened_at", "model_group"])

    op.create_table(
        "worker",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=True),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("started_at", _time(), nullable=False),
        sa.Column("seen_at", _time(), nullable=False),
        sa.Column("stopped_at", _time(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="worker_pkey"),
    )


def _time() -> sa.DateTime:
    return sa.DateTime(timezone=True).with_variant(sa.String(27), "sqlite")


def _partial_index(name: str, table: str, columns: list[str], *, where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
