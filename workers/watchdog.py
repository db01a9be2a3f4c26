"""Watches that this process takes messages: a worker may be connected, beat, and take nothing, for days.

Celery's consumer has had that fault in many forms (celery #7276, #8030, #8091, #10205: after a reconnection
nobody asks Redis for messages any more). So it is not guarded against by its causes but by what it means: free
slots, ids in the queue the whole time, and none taken. The consumer is then restarted, which leaves the calls in
flight alone; where that does not help, or the main thread itself hangs, the process hands back and ends, and
whoever supervises it starts it again.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from promptmill.logs import get_logger

log = get_logger(__name__)

LOOK_S = 1.0
OVERSLEPT_S = 5.0
"""Between two looks: more, and this thread could not run either."""
RESTARTS = 2
"""Restarts of the consumer in a row before the process is given up."""


class Diagnosis(Enum):
    """What is wrong, and so what is to be done."""

    WELL = "nothing"
    DEAF = "takes no messages: restart the consumer"
    HOPELESS = "takes no messages after restarts: drain and end"
    HUNG = "the main thread does not turn: hand back and end"


@dataclass(frozen=True, slots=True)
class Signs:
    """What can be seen of the consumer at one moment.

    Attributes:
        turns: how often the main thread's loop has turned.
        taken: messages taken so far.
        free: whether a slot is free.
        waiting: whether ids lie in the queue; None when Redis does not say.
    """

    turns: int
    taken: int
    free: bool
    waiting: bool | None


@dataclass(slots=True)
class Judge:
    """Decides from the signs, one look after the other. Pure but for what it remembers.

    Args:
        deaf_after: seconds in which messages wait and a slot is free and none is taken.
        hung_after: seconds in which Redis answers and the main thread does not turn.
    """

    deaf_after: float
    hung_after: float
    _last: Signs | None = None
    _idle_since: float = 0.0
    _still_since: float = 0.0
    _looked_at: float = float("-inf")
    _restarts: int = 0

    def judge(self, signs: Signs, now: float) -> Diagnosis:
        """What the newest signs mean at `now`, in seconds of a clock that only grows."""
        last, self._last = self._last, signs
        slept, self._looked_at = now - self._looked_at > OVERSLEPT_S, now
        if last is None or signs.waiting is None or slept:
            # With Redis away the main thread tries to connect, and nobody can take anything. And a process that
            # was frozen, with this thread in it, has not stood still for that time.
            self._idle_since = self._still_since = now
            return Diagnosis.WELL
        if signs.turns != last.turns:
            self._still_since = now
        if signs.taken != last.taken:
            self._restarts = 0
        if signs.taken != last.taken or not signs.free or not signs.waiting:
            self._idle_since = now
        if now - self._still_since >= self.hung_after:
            return Diagnosis.HUNG
        if now - self._idle_since < self.deaf_after:
            return Diagnosis.WELL
        self._idle_since = now
        self._restarts += 1
        return Diagnosis.DEAF if self._restarts <= RESTARTS else Diagnosis.HOPELESS


@dataclass(slots=True)
class Watchdog:
    """Looks once a second, on a thread of its own, and acts on the judgement.

    Args:
        signs: asks for the newest.
        restart: makes the consumer connect anew.
        end: asks the process to drain and end, as SIGTERM does.
        abandon: hands back what runs and ends the process, without its main thread.
    """

    judge: Judge
    signs: Callable[[], Signs]
    restart: Callable[[], None]
    end: Callable[[], None]
    abandon: Callable[[], None]
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._run, name="promptmill-watchdog", daemon=True)
        self._thread.start()

    def stand_down(self) -> None:
        """Look no more: the process drains. Does not wait."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                self._act(self.judge.judge(self.signs(), time.monotonic()))
            except Exception as error:  # noqa: BLE001  # the next look may go well, and nobody else looks
                log.warning("watchdog_failed", error=type(error).__name__)

    def _act(self, diagnosis: Diagnosis) -> None:
        match diagnosis:
            case Diagnosis.WELL:
                return
            case Diagnosis.DEAF:
                log.error("consumer_takes_nothing", then="restart of the consumer")
                self.restart()
            case Diagnosis.HOPELESS:
                log.critical("consumer_takes_nothing", then="end of the process")
                self.stand_down()
                self.end()
            case Diagnosis.HUNG:
                log.critical("main_thread_hangs", then="end of the process")
                self.stand_down()
                self.abandon()
