"""What goes wrong in a chaos run, when, and to whom: a pure function of seed, length and database.

The one idea: everything is drawn before anything happens, so a run can be told by its seed. How the processes
interleave differs from run to run; what is done to them does not.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

WORKERS = 3
JOBS_A_MINUTE = 2_000
RPM = 3_000
CUT, OVERLOADED, LOST_REPLY = 0.05, 0.05, 0.02
OUTAGE_S = 30.0  # of a run of three minutes or more


class Act(StrEnum):
    """What is done."""

    KILL_WORKER = "kill worker"
    RESTART_REDIS = "restart redis"
    FLUSH_REDIS = "flush redis"
    CUT_DATABASE = "cut database"


A_MINUTE = {Act.KILL_WORKER: 5.0, Act.RESTART_REDIS: 1.0, Act.FLUSH_REDIS: 0.3, Act.CUT_DATABASE: 0.5}

DATABASE_CUTS = {"postgres": ("terminate backends", "restart", "crash"), "sqlite": ("lock",)}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that is done.

    Attributes:
        at_s: seconds since the start.
        how: of several ways.
        victim: the worker's place, from 0.
        lasts_s: until it is put right: the worker or Redis started again, the database unlocked.
    """

    at_s: float
    act: Act
    how: str = ""
    victim: int = 0
    lasts_s: float = 0.0

    def __str__(self) -> str:
        words = [f"{self.at_s:7.2f} s  {self.act:<13}"]
        words += [f"w{self.victim}"] if self.act is Act.KILL_WORKER else []
        words += [self.how] if self.how else []
        words += [f"for {self.lasts_s:.2f} s"] if self.lasts_s else []
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Submission:
    """Rows that are submitted; `killed_after_s` is when the command that does it is killed the first time."""

    at_s: float
    first: int
    rows: int
    killed_after_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run.

    Attributes:
        redis_keeps: Redis finds again what it held when it is started anew.
        limits_known: the workers are told the limit; else they learn it.
        outage: an entry of the simulator's scenario.
    """

    seed: int
    minutes: float
    database: str
    redis_keeps: bool
    limits_known: bool
    outage: dict[str, Any] = field(hash=False)
    submissions: tuple[Submission, ...]
    events: tuple[Event, ...]

    @property
    def jobs(self) -> int:
        return sum(submission.rows for submission in self.submissions)

    @property
    def faults(self) -> list[dict[str, Any]]:
        """What the simulator does by itself."""
        return [
            self.outage,
            {"kind": "overloaded", "probability": OVERLOADED},
            {"kind": "cut", "probability": CUT},
            {"kind": "lost_reply", "probability": LOST_REPLY},
        ]

    def __str__(self) -> str:
        keeps = "keeps what it holds" if self.redis_keeps else "forgets all when it is restarted"
        knows = "told to the workers" if self.limits_known else "learned by the workers"
        lines = [
            f"seed {self.seed}, {self.minutes:g} min, {self.database}, {self.jobs:,} jobs, {WORKERS} workers",
            f"limit {RPM:,} requests/min, {knows}; Redis {keeps}",
            f"of the calls: {OVERLOADED:.0%} 529, {CUT:.0%} cut, {LOST_REPLY:.0%} reset after the answer was billed",
            f"outage ({self.outage['mode']}) from {self.outage['from_s']:.1f} to {self.outage['until_s']:.1f} s",
            *(
                f"{each.at_s:7.2f} s  submit {each.rows:,} rows, killed after {each.killed_after_s:.2f} s and repeated"
                for each in self.submissions
            ),
            *map(str, self.events),
        ]
        return "\n".join(lines)


def make_plan(seed: int, minutes: float, database: str) -> Plan:
    """The plan of a run."""
    dice = random.Random(f"{seed}/{minutes:g}/{database}")
    seconds = 60 * minutes
    jobs = round(JOBS_A_MINUTE * minutes)
    begins = dice.uniform(0.3, 0.6) * seconds
    outage = {
        "kind": "outage",
        "mode": dice.choice(("reset", "unavailable", "hang")),
        "from_s": round(begins, 1),
        "until_s": round(begins + OUTAGE_S * min(1.0, minutes / 3), 1),
    }
    return Plan(
        seed=seed,
        minutes=minutes,
        database=database,
        redis_keeps=dice.random() < 0.5,
        limits_known=dice.random() < 0.5,
        outage=outage,
        submissions=(
            Submission(0.0, 0, jobs // 2, dice.uniform(0.8, 2.5)),
            Submission(round(0.3 * seconds, 1), jobs // 2, jobs - jobs // 2, dice.uniform(0.8, 2.5)),
        ),
        events=tuple(sorted(_events(dice, minutes, database), key=lambda event: event.at_s)),
    )


def _events(dice: random.Random, minutes: float, database: str) -> Iterator[Event]:
    for act, a_minute in A_MINUTE.items():
        for _ in range(max(1, round(a_minute * minutes))):
            at_s = dice.uniform(0.08, 0.95) * 60 * minutes
            match act:
                case Act.KILL_WORKER:
                    yield Event(at_s, act, victim=dice.randrange(WORKERS), lasts_s=dice.uniform(0.0, 3.0))
                case Act.RESTART_REDIS:
                    how = dice.choice(("kill -9", "SIGTERM"))
                    yield Event(at_s, act, how, lasts_s=dice.uniform(0.1, 6.0))
                case Act.FLUSH_REDIS:
                    yield Event(at_s, act)
                case Act.CUT_DATABASE:
                    how = dice.choice(DATABASE_CUTS[database])
                    yield Event(at_s, act, how, lasts_s=dice.uniform(2.0, 8.0) if how == "lock" else 0.0)
