"""What all workers know of the batches at work here, kept fresh: read from the database every few seconds.

Every answer is a row, so nothing has to be written for it: a new process begins with what all have learned, and
what one learns the others know seconds later. A thread of its own reads; the event loop only waits for it at the
first job of a batch.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from promptmill.clock import Clock
from promptmill.dimensions import Amounts
from promptmill.experience import FIRST_GUESS, Experience
from promptmill.logs import get_logger
from promptmill.store.answered import Above, Kind, experience_above, experience_of
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database
from promptmill.store.jobs import LoadedJob, PendingJob

log = get_logger(__name__)

REFRESH_S = 3.0
ABOVE_KEPT_S = 60.0
"""What is known of a template or a model changes slowly."""
IN_USE_S = 60.0
"""How long a family is kept fresh after it was last asked for."""
FORGOTTEN_S = 600.0
MOST_AT_ONCE = 20
"""Families read in one round, the ones that were read longest ago first: each costs 5 to 15 ms of this process."""
STOP_S = 2.0
"""How long the end waits for a reading that is under way."""

Tell = Callable[[str, Experience], object]


def family_of(batch_id: str, model_group: str) -> str:
    """The prompts whose answers are alike: those of one batch to models of one kind."""
    return f"{batch_id} {model_group}"


def amounts_of(job: PendingJob, known: Experience | None) -> Amounts:
    """What a waiting job will take of the limits, about."""
    if known is None:
        return Amounts(1, job.estimated_input_tokens, job.estimated_output_tokens)
    # Below the first guess it is the prompt's own ceiling.
    ceiling = job.estimated_output_tokens if job.estimated_output_tokens < FIRST_GUESS else None
    return Amounts(1, known.limited_input_tokens(job.estimated_input_tokens), known.output_tokens(ceiling))


@dataclass(slots=True)
class _Family:
    """One kind of prompts and what is known of it; times are those of `time.monotonic`."""

    batch_id: str
    kind: Kind
    above: Above
    above_at: float
    experience: Experience
    read_at: float
    used_at: float


@dataclass(slots=True)
class Experiences:
    """What is known of each family in use.

    Args:
        database: where the answers are.
        clock: the time that answers are stamped with.
        every: s between two rounds of reading.
    """

    database: Database
    clock: Clock
    every: float = REFRESH_S
    _families: dict[str, _Family] = field(default_factory=dict)
    _tell: Tell | None = None
    _meeting: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Keep fresh what is in use, on a thread."""
        self._thread = threading.Thread(target=self._run, name="promptmill-experience", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOP_S)  # a daemon: one that hangs on the database ends with the process

    def attend(self, loop: asyncio.AbstractEventLoop, tell: Tell) -> None:
        """From now on tell what is learned, on that loop."""

        def tell_there(family: str, experience: Experience) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(tell, family, experience)

        self._tell = tell_there

    async def meet(self, job: LoadedJob) -> None:
        """See that what is known of a job's family was told; only the first job, also after a break, waits for it."""
        name = family_of(job.batch_id, job.model_group)
        known = self._families.get(name)
        if known is not None:
            known.used_at = time.monotonic()
            if not self._is_old(known):
                return
        meeting = self._meeting.get(name)
        if meeting is None:
            kind = Kind(job.model_group, job.simulated, job.template)
            meeting = asyncio.ensure_future(asyncio.to_thread(self._read, name, job.batch_id, kind))
            self._meeting[name] = meeting
            meeting.add_done_callback(lambda _: self._meeting.pop(name, None))
        await asyncio.shield(meeting)

    def of(self, batch: BatchRow, model_group: str) -> Experience | None:
        """What is known of a batch's prompts of one group; None while the database does not say. Not on the loop."""
        name = family_of(batch.id, model_group)
        known = self._families.get(name)
        if known is None or self._is_old(known):
            self._read(name, batch.id, Kind(model_group, batch.simulated, batch.template))
            known = self._families.get(name)
        if known is None:
            return None
        known.used_at = time.monotonic()
        return known.experience

    def refresh(self) -> None:
        """One round: read again what is in use, and forget what is not.

        Raises:
            Unavailable: the database is away; what is known stays.
        """
        now = time.monotonic()
        families = sorted(self._families.items(), key=lambda item: item[1].read_at)
        for name, family in families:
            if now - family.used_at > FORGOTTEN_S:
                self._families.pop(name, None)
        in_use = [item for item in families if now - item[1].used_at <= IN_USE_S]
        for name, family in in_use[:MOST_AT_ONCE]:
            if self._stop.is_set():
                return
            self._read_again(name, family)

    def _run(self) -> None:
        while not self._stop.wait(self.every):
            try:
                self.refresh()
            except Exception as error:  # noqa: BLE001  # what is known stays, and the next round may go well
                log.warning("experience_not_read", error=type(error).__name__)

    def _is_old(self, family: _Family) -> bool:
        """Whether nobody has read it for two rounds, as after a break: its prompt cache may be cold by now."""
        rounds = math.ceil(len(self._families) / MOST_AT_ONCE)
        return time.monotonic() - family.read_at > 2 * self.every * rounds

    def _read(self, name: str, batch_id: str, kind: Kind) -> None:
        """Read a family outside of the rounds. Without a database what is known, or the first guess, must do for now."""
        family = self._families.get(name)
        try:
            if family is None:
                self._read_first(name, batch_id, kind)
            else:
                self._read_again(name, family)
        except Exception as error:  # noqa: BLE001  # nothing here may keep a job from being answered
            log.warning("experience_not_read", error=type(error).__name__)

    def _read_first(self, name: str, batch_id: str, kind: Kind) -> None:
        with self.database.read() as connection:
            wall = self.clock.now()
            above = experience_above(connection, kind, wall, but=batch_id)
            known = experience_of(connection, batch_id, kind, above, wall)
        now = time.monotonic()
        self._families[name] = _Family(batch_id, kind, above, now, known, read_at=now, used_at=now)
        self._say(name, known)

    def _read_again(self, name: str, family: _Family) -> None:
        now, wall = time.monotonic(), self.clock.now()
        with self.database.read() as connection:
            if now - family.above_at > ABOVE_KEPT_S:
                family.above = experience_above(connection, family.kind, wall, but=family.batch_id)
                family.above_at = now
            known = experience_of(connection, family.batch_id, family.kind, family.above, wall)
        family.experience, family.read_at = known, now
        self._say(name, known)

    def _say(self, name: str, known: Experience) -> None:
        if self._tell is not None:
            self._tell(name, known)
