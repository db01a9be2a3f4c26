"""Plays a plan: one thread, one list of what is due, and a look at the batches now and then.

The one idea: what cannot be done at its moment, because its victim is away already, is put off by a second and still
done; so a run always holds everything that its plan says.
"""

import heapq
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg

from promptmill.testing import SimulatorHandle
from tests.chaos.plan import RPM, WORKERS, Act, Event, Plan, Submission
from tests.chaos.surroundings import Crew, DatabaseServer, RedisServer

MODEL = "claude-sonnet-5"
LOOK_S = 5.0
TICK_S = 0.05
AGAIN_S = 1.0
CALM_S = 300.0
"""How long the work may go on after the last thing was broken."""

Say = Callable[[str], None]


@dataclass
class Stage:
    """Everything a run consists of, while it runs."""

    plan: Plan
    folder: Path
    claude: SimulatorHandle
    redis: RedisServer
    database: DatabaseServer
    crew: Crew
    environment: dict[str, str]
    say: Say
    in_flight_at_kills: int = 0
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _begun: float = 0.0
    _submitting: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _submitted: int = 0

    def play(self) -> float:
        """Run the plan until every job has ended; the seconds it took.

        Raises:
            TimeoutError: the work did not end.
        """
        self.claude.reset()
        self._begun = time.monotonic()
        for place in range(WORKERS):
            self.crew.start(place)
        for number, submission in enumerate(self.plan.submissions):
            self._at(submission.at_s, partial(self._submit, number, submission, kill=True))
        for event in self.plan.events:
            self._at(event.at_s, partial(self._do, event))
        next_look = LOOK_S
        deadline = 2 * 60 * self.plan.minutes + CALM_S
        while True:
            self._do_what_is_due()
            self._look_after_workers()
            if self.now >= next_look:
                next_look += LOOK_S
                if self._tell_progress() and not self._due:
                    return self.now
                if self.now > deadline:
                    raise TimeoutError(f"the work has not ended after {self.now:.0f} s")
            time.sleep(TICK_S)

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begun

    def _at(self, moment: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (moment, next(self._numbers), act))

    def _do_what_is_due(self) -> None:
        while self._due and self._due[0][0] <= self.now:
            heapq.heappop(self._due)[2]()

    def _tell(self, words: str) -> None:
        self.say(f"{self.now:7.2f} s  {words}")

    def _put_off(self, event: Event) -> None:
        self._at(self.now + AGAIN_S, partial(self._do, event))

    def _do(self, event: Event) -> None:
        match event.act:
            case Act.KILL_WORKER:
                self._kill_worker(event)
            case Act.RESTART_REDIS:
                self._restart_redis(event)
            case Act.FLUSH_REDIS:
                self._flush_redis(event)
            case Act.CUT_DATABASE:
                self._cut_database(event)

    def _kill_worker(self, event: Event) -> None:
        in_flight = self.claude.ledger()["in_flight"]
        pid = self.crew.kill(event.victim)
        if pid is None:
            self._put_off(event)
            return
        self.in_flight_at_kills += in_flight
        self._tell(f"killed w{event.victim} (pid {pid}); {in_flight} calls of all workers in flight")
        self._at(self.now + event.lasts_s, partial(self._start_worker, event.victim))

    def _start_worker(self, place: int) -> None:
        self._tell(f"started w{place} (pid {self.crew.start(place)})")

    def _restart_redis(self, event: Event) -> None:
        if not self.redis.answers:
            self._put_off(event)
            return
        self.redis.end(event.how)
        self._tell(f"ended redis by {event.how}, for {event.lasts_s:.1f} s")
        self._at(self.now + event.lasts_s, self._start_redis)

    def _start_redis(self) -> None:
        self.redis.start()
        self._tell("started redis")

    def _flush_redis(self, event: Event) -> None:
        if not self.redis.answers:
            self._put_off(event)
            return
        self.redis.client.flushall()
        self._tell("flushed redis")

    def _cut_database(self, event: Event) -> None:
        try:
            done = self.database.cut(event.how)
        except psycopg.OperationalError:
            self._put_off(event)
            return
        self._tell(f"cut the database: {done}" + (f", for {event.lasts_s:.1f} s" if event.lasts_s else ""))
        if event.lasts_s:
            self._at(self.now + event.lasts_s, self._mend_database)

    def _mend_database(self) -> None:
        self.database.mend()
        self._tell("the database is free again")

    def _look_after_workers(self) -> None:
        """A worker that ends by itself is started again, as a supervisor would; and it is told."""
        for place, code in self.crew.fallen():
            self._tell(f"w{place} ended by itself with code {code}")
            self._at(self.now + AGAIN_S, partial(self._start_worker, place))

    def _submit(self, number: int, submission: Submission, *, kill: bool) -> None:
        with (self.folder / f"submit-{number}.log").open("ab") as log:
            self._submitting[number] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "producers.cli", "submit", self._rows(number, submission)),
                    *("--model", MODEL, "--max-tokens", "400", "--name", f"chaos-{number}"),
                ],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if kill:
            self._at(self.now + submission.killed_after_s, partial(self._kill_submit, number, submission))
        else:
            self._at(self.now + 0.2, partial(self._await_submit, number, submission))

    def _kill_submit(self, number: int, submission: Submission) -> None:
        process = self._submitting[number]
        was = "had ended" if process.poll() is not None else "was under way"
        process.send_signal(signal.SIGKILL)
        process.wait()
        self._tell(f"killed submit {number} ({was}); it is repeated")
        self._submit(number, submission, kill=False)

    def _await_submit(self, number: int, submission: Submission) -> None:
        code = self._submitting[number].poll()
        if code is None:
            self._at(self.now + 0.2, partial(self._await_submit, number, submission))
        elif code:
            self._tell(f"submit {number} ended with code {code}; it is repeated")
            self._at(self.now + AGAIN_S, partial(self._submit, number, submission, kill=False))
        else:
            self._submitted += 1
            self._tell(f"submitted {submission.rows:,} rows as chaos-{number}")

    def _rows(self, number: int, submission: Submission) -> str:
        path = self.folder / f"rows-{number}.jsonl"
        if not path.exists():
            numbers = range(submission.first, submission.first + submission.rows)
            rows = ({"prompt": f"Question {n} of seed {self.plan.seed}: what is {n} + {n}?"} for n in numbers)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path.name

    def _tell_progress(self) -> bool:
        """Say how far the work is; whether it is at its end."""
        if self._submitted < len(self.plan.submissions):
            return False
        try:
            rows = self.database.ask(
                "SELECT state, total, succeeded, errored + canceled + expired, attempts FROM batch ORDER BY name"
            )
        except Exception as error:  # noqa: BLE001  # it may be cut off just now
            self.say(f"{self.now:7.2f} s  (the database is away: {type(error).__name__})")
            return False
        batches = "; ".join(
            f"{state} {succeeded:,} of {total:,}, {other:,} otherwise"
            for state, total, succeeded, other, _ in rows
        )
        book = self.claude.ledger()
        self.say(
            f"{self.now:7.2f} s  … {batches}; {book['requests']:,} calls, {book['in_flight']} in flight,"
            f" {limit_refusals(book):,} over the limit"
        )
        return len(rows) == len(self.plan.submissions) and all(row[0] == "ended" for row in rows)


def limit_refusals(book: dict[str, object]) -> int:
    """429s that no scenario asked for."""
    refused = book["refused"]
    assert isinstance(refused, dict)
    reasons = ("requests", "input_tokens", "output_tokens", "ramp")
    return sum(refused["by_reason"].get(reason, 0) for reason in reasons)


def settings_of(
    plan: Plan, claude: SimulatorHandle, redis: RedisServer, database: DatabaseServer
) -> dict[str, str]:
    """The environment variables of the product for this run."""
    known = {"PROMPTMILL_RPM": str(RPM), "PROMPTMILL_ITPM": "0", "PROMPTMILL_OTPM": "0"}
    return {
        "PROMPTMILL_REDIS_URL": redis.url,
        "PROMPTMILL_DATABASE_URL": database.url,
        "ANTHROPIC_BASE_URL": claude.url,
        "ANTHROPIC_API_KEY": "sk-chaos",
        "PROMPTMILL_CONCURRENCY": "64",
        "PROMPTMILL_LOG_LEVEL": "INFO",
        "PROMPTMILL_LOG_FORMAT": "json",
        **(known if plan.limits_known else {}),
    }
