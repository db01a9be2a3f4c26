"""Every Prometheus metric that Promptmill shows: its name, its labels, its unit and one line about it.

The idea: names are a contract with dashboards, so they stand in one place, as values. Whoever shows them fills
them in; this module knows no server and no library.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: a counter, which never goes back, where its name ends in `_total`; else a figure of this moment.

    Attributes:
        name: as Prometheus has it.
        unit: of its value, in words.
        help: one line for people.
        labels: what tells its series apart.
    """

    name: str
    unit: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def is_counter(self) -> bool:
        """Whether it only rises."""
        return self.name.endswith("_total")


_POOL = ("account", "group")
_DIMENSION = (*_POOL, "dimension")

LIMIT = Metric(
    "promptmill_limit_per_minute",
    "requests or tokens per minute",
    "The limit in force; no series where there is none. The source says where it comes from.",
    (*_DIMENSION, "source"),
)
USED = Metric(
    "promptmill_limit_used_per_minute",
    "requests or tokens per minute",
    "What was granted less what was given back, in about the last minute.",
    _DIMENSION,
)
LEVEL = Metric(
    "promptmill_limit_level",
    "requests or tokens",
    "What the server's bucket is thought to hold now.",
    _DIMENSION,
)
CAPACITY = Metric(
    "promptmill_limit_capacity",
    "requests or tokens",
    "The most that the server's bucket is known to hold.",
    _DIMENSION,
)
FOREIGN = Metric(
    "promptmill_limit_foreign_per_minute",
    "requests or tokens per minute",
    "What other programs take from the same limit.",
    _DIMENSION,
)
PACE = Metric(
    "promptmill_limit_pace_per_minute",
    "requests or tokens per minute",
    "What may be granted now, after gentle start, easing and what other programs take.",
    _DIMENSION,
)
IN_FLIGHT = Metric(
    "promptmill_permits_in_flight",
    "permits",
    "Calls that were granted and are not settled, of all processes.",
    _POOL,
)
IN_LINE = Metric(
    "promptmill_processes_in_line",
    "processes",
    "Worker processes that wait in line for permits.",
    _POOL,
)
PAUSED = Metric(
    "promptmill_pool_paused_seconds",
    "seconds",
    "How long the pause after a 429 still lasts; 0 when there is none.",
    _POOL,
)
SHARE = Metric(
    "promptmill_pool_share",
    "share from 0 to 1",
    "How much of the limits the gentle start and the easing after overloads allow now.",
    _POOL,
)
HELD = Metric(
    "promptmill_pool_held",
    "1 or absent",
    "What the next call waits for; no series while nothing waits.",
    (*_POOL, "by"),
)
JOBS = Metric(
    "promptmill_jobs_waiting",
    "jobs",
    "Jobs of active batches that have not begun, in the database (pending) or handed to workers (queued).",
    ("group", "state"),
)
WORKERS = Metric("promptmill_workers", "processes", "Worker processes that live.")
PUT_RIGHT = Metric(
    "promptmill_put_right",
    "things",
    "What workers found wrong and put right since Redis was last empty: it harms no job, and says that something is sick.",
    ("what",),
)
REACHABLE = Metric(
    "promptmill_limiter_reachable",
    "1 or 0",
    "Whether the limiter's Redis answered; when it did not, there are no series of pools.",
)

LIMIT_METRICS = (
    LIMIT,
    USED,
    LEVEL,
    CAPACITY,
    FOREIGN,
    PACE,
    IN_FLIGHT,
    IN_LINE,
    PAUSED,
    SHARE,
    HELD,
    JOBS,
    WORKERS,
    PUT_RIGHT,
    REACHABLE,
)
"""What `promptmill limits --prometheus` shows."""

_MODEL = ("model", "simulated")

ENDED = Metric(
    "promptmill_jobs_ended_total",
    "jobs",
    "Jobs that have ended, by how. One that a person has tried anew may end twice.",
    ("state",),
)
ATTEMPTS = Metric("promptmill_attempts_total", "attempts", "Calls that were begun.", _MODEL)
FAILED_ATTEMPTS = Metric(
    "promptmill_attempts_failed_total",
    "attempts",
    "Calls that did not succeed, by what became of them; rate_limited is a 429.",
    ("outcome",),
)
TOKENS = Metric(
    "promptmill_tokens_total",
    "tokens",
    "Tokens used: input, output, cache_write, cache_read. The kinds do not overlap.",
    ("kind", *_MODEL),
)
COST = Metric(
    "promptmill_cost_dollars_total",
    "dollars",
    "What calls have cost, as far as it is known. Simulated calls cost nobody anything.",
    _MODEL,
)
RESERVED = Metric("promptmill_reserved_dollars", "dollars", "What is set aside for calls in flight.", _MODEL)
UNPRICED = Metric(
    "promptmill_attempts_unpriced",
    "attempts",
    "Calls that have ended without anybody knowing their cost.",
    _MODEL,
)
ALL_JOBS = Metric("promptmill_jobs", "jobs", "Jobs in the database, by state.", ("state",))
BATCHES = Metric("promptmill_batches", "batches", "Batches in the database, by state.", ("state",))
BATCH_JOBS = Metric(
    "promptmill_batch_jobs",
    "jobs",
    "Jobs of a batch by state; only of the 50 newest that are active, paused or being canceled.",
    ("batch", "state"),
)
BATCH_COST = Metric(
    "promptmill_batch_cost_dollars",
    "dollars",
    "What such a batch has cost so far.",
    ("batch",),
)
BATCH_BUDGET = Metric(
    "promptmill_batch_budget_dollars",
    "dollars",
    "The budget of such a batch; no series where it has none.",
    ("batch",),
)
BATCH_PAUSED = Metric(
    "promptmill_batch_paused",
    "1 or absent",
    "Such a batch is paused: by a person, budget, spend_cap, key or encryption.",
    ("batch", "by"),
)
CALL_SECONDS = Metric(
    "promptmill_recent_call_seconds",
    "seconds",
    "How long calls took, by percentile: of the 1,000 that ended last, within 10 minutes.",
    ("group", "percentile"),
)
QUEUE = Metric(
    "promptmill_queue_messages",
    "messages",
    "Ids of jobs that lie in the queue at Redis; no series with another broker.",
)
SLOTS = Metric("promptmill_worker_slots", "calls", "How many calls a worker may have in flight.", ("worker",))
CALLS = Metric("promptmill_worker_calls", "calls", "How many calls a worker has in flight.", ("worker",))
LOOP_LAG = Metric(
    "promptmill_worker_loop_lag_seconds",
    "seconds",
    "By how much a worker's event loop was late, at worst in the last few seconds.",
    ("worker",),
)
MEMORY = Metric(
    "promptmill_worker_resident_memory_bytes",
    "bytes",
    "Memory that a worker holds.",
    ("worker",),
)
REFUSED = Metric(
    "promptmill_messages_refused_total",
    "messages",
    "Messages in the queue that were none of ours, by reason, since Redis was last empty.",
    ("reason",),
)
NEXT_DUE = Metric(
    "promptmill_schedule_next_due_timestamp_seconds",
    "seconds since 1970",
    "When a schedule is due next; long past where nobody looks. No series while it is paused.",
    ("schedule",),
)
LAST_DUE = Metric(
    "promptmill_schedule_last_due_timestamp_seconds",
    "seconds since 1970",
    "The last due time of a schedule, and what became of it: waiting, submitted, failed or skipped.",
    ("schedule", "state"),
)
KEYS = Metric(
    "promptmill_keys",
    "keys",
    "Keys by how they stand, as `promptmill keys` shows them: usable, resting, expired, refused or missing.",
    ("account", "standing"),
)
KEY_EXPIRES = Metric(
    "promptmill_key_expires_timestamp_seconds",
    "seconds since 1970",
    "When a key expires; no series where nobody said, and of tokens that are fetched again by themselves.",
    ("account", "label"),
)
DATABASE_REACHABLE = Metric(
    "promptmill_database_reachable",
    "1 or 0",
    "Whether the database answered; when it did not, there are no figures of jobs and cost.",
)
BUILD = Metric("promptmill_build_info", "1", "The version that shows these metrics.", ("version",))

RUNNING_METRICS = (
    ENDED,
    ATTEMPTS,
    FAILED_ATTEMPTS,
    TOKENS,
    COST,
    RESERVED,
    UNPRICED,
    ALL_JOBS,
    BATCHES,
    BATCH_JOBS,
    BATCH_COST,
    BATCH_BUDGET,
    BATCH_PAUSED,
    CALL_SECONDS,
    QUEUE,
    SLOTS,
    CALLS,
    LOOP_LAG,
    MEMORY,
    REFUSED,
    NEXT_DUE,
    LAST_DUE,
    KEYS,
    KEY_EXPIRES,
    DATABASE_REACHABLE,
    BUILD,
)
"""What `/metrics` shows beside the limits."""

METRICS = (*LIMIT_METRICS, *RUNNING_METRICS)
