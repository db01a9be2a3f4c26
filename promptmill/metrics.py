"""Every Prometheus metric that Promptmill shows: its name, its labels, its unit and one line about it.

The idea: names are a contract with dashboards, so they stand in one place, as values. Whoever shows them fills
them in; this module knows no server and no library.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; all of them are gauges so far: figures of this moment.

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

METRICS = (
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
