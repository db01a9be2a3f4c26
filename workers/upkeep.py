"""Upkeep: what the leader does now and then, beside its work: notices are sent, old prompts deleted.

The one idea: the leader says that it leads, again and again, and each time each of these does one round, on a thread
of its own. So nothing is done where nobody leads, and none of them waits for another.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from promptmill import retention
from promptmill.clock import Clock
from promptmill.errors import InvalidTransition, NotFound, Unavailable
from promptmill.logs import get_logger, where
from promptmill.retention import Retention
from promptmill.store.database import Database
from workers.notices import Herald

log = get_logger(__name__)

RETENTION_S = 3600.0
"""Between two looks for what is kept too long."""
_PATIENCE_S = 3.0
"""At the end, for rounds under way: most receivers answer within that, and what was not noted is told again."""


@dataclass(slots=True)
class Rounds:
    """One kind of upkeep: a round whenever it is asked for, never two at once.

    Attributes:
        name: of its thread.
        act: does one round.
        stopping: set when no further round is to begin.
    """

    name: str
    act: Callable[[], object]
    stopping: threading.Event
    _wake: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def poke(self) -> None:
        """Do a round soon. Does not wait."""
        if self._thread is None and not self.stopping.is_set():
            # A daemon: what it waits for, a receiver or a resolver, must not hold up the end of the process.
            self._thread = threading.Thread(target=self._run, name=f"promptmill-{self.name}", daemon=True)
            self._thread.start()
        self._wake.set()

    def join(self, timeout: float) -> None:
        """Wait for the round under way, so many seconds."""
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while self._wake.wait() and not self.stopping.is_set():
            self._wake.clear()
            try:
                self.act()
            except Unavailable as error:
                log.warning("upkeep_waits", act=self.name, error=str(error))
            except Exception as error:  # noqa: BLE001  # the next round may go well, and nobody else does it
                log.error("upkeep_failed", act=self.name, **where(error))  # noqa: TRY400  # its text may quote a row


@dataclass(slots=True)
class Upkeep:
    """One round of each kind whenever the leader says so.

    Attributes:
        kept: how long prompts and answers are kept.
    """

    database: Database
    herald: Herald
    kept: Retention
    clock: Clock
    _stopping: threading.Event = field(default_factory=threading.Event)
    _rounds: tuple[Rounds, ...] = ()
    _looked_at: float = float("-inf")
    _log_is_old: bool = False

    def __post_init__(self) -> None:
        """Each kind has its thread."""
        acts = {"notices": self.herald.tell, "retention": self.delete_now_and_then}
        self._rounds = tuple(Rounds(name, act, self._stopping) for name, act in acts.items())

    def poke(self) -> None:
        """This process leads: do a round. Does not wait."""
        for each in self._rounds:
            each.poke()

    def step_down(self) -> None:
        """Begin no further round. Does not wait: a signal handler may call it."""
        self._stopping.set()

    def stop(self) -> None:
        """Step down, and wait a little for the rounds under way; what they leave, the next leader does."""
        self.step_down()
        until = self.clock.monotonic() + _PATIENCE_S
        for each in self._rounds:
            each.join(max(0.0, until - self.clock.monotonic()))

    def delete_now_and_then(self) -> None:
        """Delete what is too old, once an hour; and empty SQLite's log of it as soon as nobody reads."""
        if self.clock.monotonic() - self._looked_at >= RETENTION_S:
            self._looked_at = self.clock.monotonic()
            self._log_is_old = True  # of what a person purged, too
            self.delete_old()
        if self._log_is_old:
            self._log_is_old = not self.database.forget_log()

    def delete_old(self) -> int:
        """Delete what is kept longer than it should be; of how many batches."""
        purged = 0
        for row, parts in retention.due(self.database, self.kept):
            try:
                retention.purge(
                    self.database,
                    row,
                    parts,
                    clock=self.clock,
                    sleep=self._stopping.wait,
                    progress=self._go_on,
                )
            except (InvalidTransition, NotFound):  # somebody retried it, or was quicker
                continue
            except _SteppedDownError:
                break
            purged += 1
            log.info("batch_purged", batch_id=row.id, parts=sorted(parts))
        return purged

    def _go_on(self, _jobs: int, _of: int) -> None:
        if self._stopping.is_set():
            raise _SteppedDownError


class _SteppedDownError(Exception):
    """In the midst of a batch, which the next leader purges of the rest."""
