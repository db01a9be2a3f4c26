"""The thread that leads when it is this worker's turn: it keeps the window full and looks for lost work."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from promptmill.broker import Nudges
from promptmill.clock import Clock
from promptmill.errors import Unavailable
from promptmill.logs import get_logger, where
from workers.dispatcher import Dispatcher
from workers.leadership import Leadership
from workers.reaper import Reaper
from workers.upkeep import Upkeep

log = get_logger(__name__)

BUSY_S = 0.1
"""Between two looks while ids go out."""
IDLE_S = 0.5
"""Between two looks while nothing does; a nudge ends the wait."""
FOLLOW_S = 1.0
"""Between two tries to become the leader."""
SWEEP_S = 2.0
"""Between two looks for lost work."""


@dataclass(slots=True)
class Leader:
    """Runs the dispatcher and the reaper while this process holds the lock."""

    leadership: Leadership
    dispatcher: Dispatcher
    reaper: Reaper
    upkeep: Upkeep
    redis_url: str
    clock: Clock
    wake_recurring: Callable[[], None] = lambda: None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _swept_at: float = float("-inf")

    def start(self) -> None:
        """Begin to lead, or to stand by."""
        self._thread = threading.Thread(target=self._run, name="promptmill-leader", daemon=True)
        self._thread.start()

    def step_down(self) -> None:
        """Send out nothing more, and let another lead. Does not wait: a signal handler may call it."""
        self._stop.set()
        self.upkeep.step_down()

    def stop(self) -> None:
        """Step down, and wait for the round that is under way."""
        self.step_down()
        if self._thread is not None:
            self._thread.join()
        self.upkeep.stop()

    def _run(self) -> None:
        with Nudges(self.redis_url) as nudges:
            while not self._stop.is_set():
                if not self.leadership.hold():
                    self._stop.wait(FOLLOW_S)
                elif self._lead():
                    self._stop.wait(BUSY_S)
                else:
                    nudges.wait(IDLE_S)
        self.leadership.resign()

    def _lead(self) -> int:
        """One round; how many ids went out. A broker that is away must not keep lost work from being found."""
        if self.clock.monotonic() - self._swept_at >= SWEEP_S:
            self._swept_at = self.clock.monotonic()
            self.wake_recurring()
            self.upkeep.poke()
            self._try(self.reaper.sweep)
        return self._try(self.dispatcher.fill_window)

    @staticmethod
    def _try(act: Callable[[], int]) -> int:
        try:
            return act()
        except Unavailable as error:
            log.warning("leader_waits", act=act.__name__, error=str(error))
        except Exception as error:  # noqa: BLE001  # the next round may go well, and nobody else leads
            log.error("leader_failed", act=act.__name__, **where(error))  # noqa: TRY400  # its text may quote a row
        return 0
