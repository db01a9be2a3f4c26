"""The tables. Their names and columns are a contract for people who query with SQL.

SQLModel classes give names, types and metadata; the work is done with Core statements on the `Table`
objects at the end of this file. `migrations/` must say the same, and a test compares the two.

A predicate of a partial index is spelled once, here: a statement that spells it otherwise does not use
the index, and a bound parameter does not count as a spelling.
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, MetaData, Table, UniqueConstraint, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from promptmill.store.columns import JsonText, PlainText, UTCDateTime
from promptmill.store.sealing import KeyedWord, SealedJson, SealedText, SealedWord

NAMES = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
}

SERVED = "state IN ('active', 'paused', 'canceling')"
PENDING_FRESH = "state = 'pending' AND not_before IS NULL"
PENDING_DEFERRED = "state = 'pending' AND not_before IS NOT NULL"
OUT = "state IN ('queued', 'running', 'submitted')"
RUNNING = "state = 'running'"
QUEUED = "state = 'queued'"
FAILED_TRIES = "outcome NOT IN ('open', 'succeeded')"
ANSWERED = "outcome = 'succeeded'"
CLOSED = "closed_at IS NOT NULL"
ENDED_BADLY = "state IN ('errored', 'expired')"
NOTICE_OWED = "notify_url IS NOT NULL AND notified_at IS NULL"
NOTICE_AGAIN: dict[str, Any] = {
    "notified_at": None,
    "notify_tries": 0,
    "notify_after": None,
    "notify_fault": None,
}
"""What a batch that changed its state owes those who are told of it; see `notices`."""
SCHEDULED = "state = 'active'"
RUN_OPEN = "try_after IS NOT NULL"


FAILED_OF = ("error_kind", "error_status", "error_type", "error_code")
NO_FAILURE = dict.fromkeys(FAILED_OF)


class Row(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMES))):
    """What all tables share: metadata of our own, so that a user's SQLModel tables never meet ours."""


_FROM_ZERO = {"server_default": text("0")}


def _partial(name: str, *columns: str, where: str) -> Index:
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


class Batch(Row, table=True):
    """Jobs submitted together. The counters are kept equal to the jobs and attempts they count.

    `shared` stood last in the first version: SQLite reads a row from its beginning, and it may be large. What
    came later stands behind it, where a migration puts it.

    `template` names what all prompts share; `formula_tokens` are the estimates of all jobs by formula alone,
    `formula_tokens_answered` those of the jobs that succeeded. `estimated_…` is what was expected of the whole
    batch when it was admitted, with what was known then. `unknown_nanos` is what was set aside for the attempts
    that closed without anybody knowing their cost.
    `notify_…` is who is told of its end, how far that is and why it last failed, `purged_at` when its prompts and answers were deleted.
    """

    __tablename__ = "batch"
    __table_args__: ClassVar[Any] = (
        _partial("batch_served", "state", where=SERVED),
        Index("batch_created", "created_at"),
        Index("batch_template", "template", "created_at"),
        _partial("batch_notice", "notify_after", where=NOTICE_OWED),
    )

    id: str = Field(primary_key=True)
    name: str = Field(sa_type=PlainText, unique=True)
    state: str
    reason: str | None = Field(sa_type=PlainText)
    lane: str
    model: str
    endpoint: str
    simulated: bool
    priority: float
    content_hash: str | None = Field(sa_type=SealedWord)
    deadline: datetime | None = Field(sa_type=UTCDateTime)
    total: int
    succeeded: int
    errored: int
    canceled: int
    expired: int
    input_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    cache_write_tokens: int = Field(sa_type=BigInteger)
    cache_read_tokens: int = Field(sa_type=BigInteger)
    attempts: int = Field(sa_type=BigInteger)
    unpriced_attempts: int = Field(sa_type=BigInteger)
    cost_nanos: int = Field(sa_type=BigInteger)
    reserved_nanos: int = Field(sa_type=BigInteger)
    estimate_nanos: int | None = Field(sa_type=BigInteger)
    budget_nanos: int | None = Field(sa_type=BigInteger)
    created_at: datetime = Field(sa_type=UTCDateTime)
    sealed_at: datetime | None = Field(sa_type=UTCDateTime)
    started_at: datetime | None = Field(sa_type=UTCDateTime)
    ended_at: datetime | None = Field(sa_type=UTCDateTime)
    tags: Any = Field(sa_type=JsonText, nullable=False)
    options: Any = Field(sa_type=JsonText, nullable=False)
    shared: Any = Field(sa_type=SealedJson, nullable=False)
    template: str | None = Field(sa_type=KeyedWord)
    formula_tokens: int = Field(sa_type=BigInteger, sa_column_kwargs=_FROM_ZERO)
    formula_tokens_answered: int = Field(sa_type=BigInteger, sa_column_kwargs=_FROM_ZERO)
    estimated_input_tokens: int | None = Field(sa_type=BigInteger)
    estimated_output_tokens: int | None = Field(sa_type=BigInteger)
    unknown_nanos: int = Field(sa_type=BigInteger, sa_column_kwargs=_FROM_ZERO)
    paused_by: str | None
    resume_at: datetime | None = Field(sa_type=UTCDateTime)
    resumed_at: datetime | None = Field(sa_type=UTCDateTime)
    notify_url: str | None = Field(sa_type=SealedText)
    notified_at: datetime | None = Field(sa_type=UTCDateTime)
    notify_tries: int = Field(sa_column_kwargs=_FROM_ZERO)
    notify_after: datetime | None = Field(sa_type=UTCDateTime)
    purged_at: datetime | None = Field(sa_type=UTCDateTime)
    notify_fault: str | None = Field(sa_type=SealedText)


class BatchCount(Row, table=True):
    """What is counted of a batch word by word, kept equal to its rows as the counters of `batch` are.

    `what` is `outcome` (closed attempts that did not succeed, by outcome), `stop_reason` (answers that ended otherwise
    than by being complete, by their stop reason) or `failed` (jobs that errored or expired, by state, kind, status,
    type and code in a JSON array). What never happened has no row, or a 0. Words of servers are cut short, and beyond
    `tallies.MOST_WORDS` they are counted together as `other`.
    """

    __tablename__ = "batch_count"

    batch_id: str = Field(primary_key=True, foreign_key="batch.id", ondelete="CASCADE")
    what: str = Field(primary_key=True)
    word: str = Field(primary_key=True, sa_type=PlainText)
    number: int = Field(sa_type=BigInteger)


class PurgedBatch(Row, table=True):
    """A rehearsal that was purged of everything: how many calls may stand in a simulator's book that no attempt names.

    Nothing else is kept of it, and of real batches nothing at all.
    """

    __tablename__ = "purged_batch"

    id: str = Field(primary_key=True)
    attempts: int = Field(sa_type=BigInteger)
    ended_at: datetime = Field(sa_type=UTCDateTime)


class Job(Row, table=True):
    """One Prompt to be answered once. Narrow, because the dispatcher scans it.

    `forgiven` is the number of the last attempt before a person had it tried anew: failures up to it do not count.
    `error_status`, `error_type` and `error_code` are what the server said of the last failure, and go with `error_kind`.
    """

    __tablename__ = "job"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("batch_id", "custom_id"),
        UniqueConstraint("batch_id", "seq"),
        _partial("job_pending", "batch_id", "model_group", "seq", where=PENDING_FRESH),
        _partial("job_deferred", "batch_id", "model_group", "not_before", where=PENDING_DEFERRED),
        _partial("job_out", "batch_id", "state", "model_group", where=OUT),
        _partial("job_running", "worker_id", where=RUNNING),
        _partial("job_queued", "queued_at", where=QUEUED),
        _partial("job_failed", "batch_id", "state", *FAILED_OF, "seq", where=ENDED_BADLY),
    )

    id: str = Field(primary_key=True)
    batch_id: str = Field(foreign_key="batch.id", ondelete="CASCADE")
    seq: int = Field(sa_type=BigInteger)
    custom_id: str = Field(sa_type=PlainText)
    state: str
    model_group: str
    estimated_input_tokens: int
    estimated_output_tokens: int
    dispatch: int
    token: int
    worker_id: str | None
    attempts: int
    not_before: datetime | None = Field(sa_type=UTCDateTime)
    queued_at: datetime | None = Field(sa_type=UTCDateTime)
    error_kind: str | None
    changed_at: datetime = Field(sa_type=UTCDateTime)
    forgiven: int = Field(sa_column_kwargs=_FROM_ZERO)
    error_status: int | None
    error_type: str | None = Field(sa_type=PlainText)
    error_code: str | None = Field(sa_type=PlainText)


class Prompt(Row, table=True):
    """What a job asks, without what its batch shares; `source` is the caller's own row."""

    __tablename__ = "prompt"

    job_id: str = Field(primary_key=True, foreign_key="job.id", ondelete="CASCADE")
    fingerprint: str = Field(sa_type=SealedWord)
    body: Any = Field(sa_type=SealedJson, nullable=False)
    source: Any = Field(sa_type=SealedJson, nullable=True)


class Reply(Row, table=True):
    """The accepted answer of a job."""

    __tablename__ = "reply"

    job_id: str = Field(primary_key=True, foreign_key="job.id", ondelete="CASCADE")
    attempt_id: str
    stop_reason: str | None = Field(sa_type=PlainText)
    model: str = Field(sa_type=PlainText)
    simulated: bool
    created_at: datetime = Field(sa_type=UTCDateTime)
    text: str = Field(sa_type=SealedText)
    parsed: Any = Field(sa_type=SealedJson, nullable=True)
    message: Any = Field(sa_type=SealedJson, nullable=False)


class Attempt(Row, table=True):
    """One try at a job: `open`, then closed once as `succeeded`, the kind of a failure, or `lost`.

    A lost one, whose worker was taken for dead, is closed anew when the late writer says what it used.
    """

    __tablename__ = "attempt"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("job_id", "number"),
        _partial("attempt_failed", "batch_id", "outcome", where=FAILED_TRIES),
        Index("attempt_opened", "opened_at", "model_group"),
        _partial("attempt_closed", "closed_at", where=CLOSED),
        _partial("attempt_answered", "batch_id", "model_group", "opened_at", where=ANSWERED),
    )

    id: str = Field(primary_key=True)
    job_id: str = Field(foreign_key="job.id", ondelete="CASCADE")
    batch_id: str
    number: int
    token: int
    worker_id: str
    key_label: str = Field(sa_type=PlainText)
    account: str = Field(sa_type=PlainText)
    model: str
    model_group: str
    lane: str
    opened_at: datetime = Field(sa_type=UTCDateTime)
    closed_at: datetime | None = Field(sa_type=UTCDateTime)
    outcome: str
    status: int | None
    error_type: str | None = Field(sa_type=PlainText)
    error_code: str | None = Field(sa_type=PlainText)
    error_message: str | None = Field(sa_type=SealedText)
    request_id: str | None = Field(sa_type=PlainText)
    stop_reason: str | None = Field(sa_type=PlainText)
    input_tokens: int
    output_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    cache_read_tokens: int
    web_searches: int
    usage_raw: Any = Field(sa_type=JsonText, nullable=True)
    cost_nanos: int | None = Field(sa_type=BigInteger)
    reserved_nanos: int | None = Field(sa_type=BigInteger)
    price_version: str | None
    simulated: bool


class Worker(Row, table=True):
    """A worker process, alive while `seen_at` is fresh."""

    __tablename__ = "worker"

    id: str = Field(primary_key=True)
    host: str = Field(sa_type=PlainText)
    pid: int
    version: str
    endpoint: str | None
    slots: int
    running: int
    started_at: datetime = Field(sa_type=UTCDateTime)
    seen_at: datetime = Field(sa_type=UTCDateTime)
    stopped_at: datetime | None = Field(sa_type=UTCDateTime)


class Schedule(Row, table=True):
    """What is submitted again and again: at the times of `cron` in `timezone`, or every `every_s` from `starts_at` on.

    `next_due` is the first due time for which there is no row in `schedule_run` yet. `what` is the source and the
    options of the submission, its templates not filled in.
    """

    __tablename__ = "schedule"
    __table_args__: ClassVar[Any] = (_partial("schedule_due", "next_due", where=SCHEDULED),)

    id: str = Field(primary_key=True)
    name: str = Field(sa_type=PlainText, unique=True)
    state: str
    cron: str | None
    every_s: int | None
    timezone: str
    missed: str
    overlap: str
    endpoint: str
    simulated: bool
    starts_at: datetime = Field(sa_type=UTCDateTime)
    next_due: datetime | None = Field(sa_type=UTCDateTime)
    created_at: datetime = Field(sa_type=UTCDateTime)
    changed_at: datetime = Field(sa_type=UTCDateTime)
    what: Any = Field(sa_type=SealedJson, nullable=False)


class ScheduleRun(Row, table=True):
    """One due time of a schedule and what became of it. Its key is what makes each due time one batch.

    `try_after` is when somebody may take it up (again); None when nothing is left to do.
    """

    __tablename__ = "schedule_run"
    __table_args__: ClassVar[Any] = (_partial("schedule_run_open", "try_after", where=RUN_OPEN),)

    schedule_id: str = Field(primary_key=True, foreign_key="schedule.id", ondelete="CASCADE")
    due_at: datetime = Field(primary_key=True, sa_type=UTCDateTime)
    state: str
    manual: bool
    reason: str | None = Field(sa_type=PlainText)
    tries: int
    try_after: datetime | None = Field(sa_type=UTCDateTime)
    batch_id: str | None
    created_at: datetime = Field(sa_type=UTCDateTime)
    ended_at: datetime | None = Field(sa_type=UTCDateTime)


METADATA = Row.metadata
batch: Table = METADATA.tables["batch"]
batch_count: Table = METADATA.tables["batch_count"]
job: Table = METADATA.tables["job"]
prompt: Table = METADATA.tables["prompt"]
reply: Table = METADATA.tables["reply"]
attempt: Table = METADATA.tables["attempt"]
worker: Table = METADATA.tables["worker"]
purged_batch: Table = METADATA.tables["purged_batch"]
schedule: Table = METADATA.tables["schedule"]
schedule_run: Table = METADATA.tables["schedule_run"]
