"""Upkeep: what the leader does now and then, on a thread of its own: notices are sent, old prompts deleted.

The one idea: the leader says that it leads, again and again, and each time one round is done. So nothing is done
where nobody leads, and a receiver that does not answer holds up no dispatch.
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
_PATIENCE_S = 15.0
"""At the end, for a round that is under way: a notice takes ten seconds at most."""


@dataclass(slots=True)
class Upkeep:
    """One round whenever the leader says so.

    Attributes:
        kept: how long prompts and answers are kept.
    """

    database: Database
    herald: Herald
    kept: Retention
    clock: Clock
    _wake: threading.Event = field(default_factory=threading.Event)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _purged_at: float = float("-inf")

    def poke(self) -> None:
        """This process leads: do a round. Does not wait."""
        if self._thread is None and not self._stopping.is_set():
            self._thread = threading.Thread(target=self._run, name="promptmill-upkeep", daemon=True)
            self._thread.start()
        self._wake.set()

    def step_down(self) -> None:
        """Begin no further round. Does not wait: a signal handler may call it."""
        self._stopping.set()
        self._wake.set()

    def stop(self) -> None:
        """Step down, and wait a little for the round under way; what it leaves, the next leader does."""
        self.step_down()
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        while self._wake.wait() and not self._stopping.is_set():
            self._wake.clear()
            self._try(self.herald.tell)
            if self.clock.monotonic() - self._purged_at >= RETENTION_S:
                self._purged_at = self.clock.monotonic()
                self._try(self.delete_old)

    def delete_old(self) -> int:
        """Delete what is kept longer than it should be; of how many batches."""
        purged = 0
        for row, parts in retention.due(self.database, self.kept):
            if self._stopping.is_set():
                break
            try:
                retention.purge(self.database, row, parts, clock=self.clock, sleep=self._stopping.wait)
            except (InvalidTransition, NotFound):  # somebody retried it, or was quicker
                continue
            purged += 1
            log.info("batch_purged", batch_id=row.id, parts=sorted(parts))
        return purged

    @staticmethod
    def _try(act: Callable[[], int]) -> None:
        try:
            act()
        except Unavailable as error:
            log.warning("upkeep_waits", act=act.__name__, error=str(error))
        except Exception as error:  # noqa: BLE001  # the next round may go well, and nobody else does it
            log.error("upkeep_failed", act=act.__name__, **where(error))  # noqa: TRY400  # its text may quote a row
