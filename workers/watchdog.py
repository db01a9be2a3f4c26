"""Watches that this process takes messages: a worker may be connected, beat, and take nothing, for days.

Celery's consumer has had that fault in many forms (celery #7276, #8030, #8091, #10205: after a reconnection
nobody asks Redis for messages any more). So it is not guarded against by its causes but by what it means: free
slots, ids in the queue the whole time, and none taken. The consumer is then restarted, which leaves the calls in
flight alone; where that does not help, or the main thread itself hangs, the process hands back and ends, and
whoever supervises it starts it again.
"""

import os
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
LAST_ACTS_S = 45.0
"""In which a process that is given up may hand back, write and sign off; then it ends without."""


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
        abandon: hands back what runs and signs off, without the main thread; after it the process ends.
        on_hand: how many jobs the process works on.
        longest_call: seconds in which one of them must have ended, when it drains.
        leave: ends the process at once.
    """

    judge: Judge
    signs: Callable[[], Signs]
    restart: Callable[[], None]
    end: Callable[[], None]
    abandon: Callable[[], None]
    on_hand: Callable[[], int]
    longest_call: float
    leave: Callable[[int], object] = os._exit
    look_every: float = LOOK_S
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
        while not self._stop.wait(self.look_every):
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
                self.end()
                self._see_out()
                self._give_up("drain_stands_still")
            case Diagnosis.HUNG:
                self._give_up("main_thread_hangs")

    def _see_out(self) -> None:
        """Wait while the drain goes on; where it works, the process ends in the midst of this."""
        left, since = self.on_hand(), time.monotonic()
        while time.monotonic() - since < (self.longest_call if left else self.judge.hung_after):
            time.sleep(self.look_every)
            before, left = left, self.on_hand()
            if left != before:
                since = time.monotonic()

    def _give_up(self, why: str) -> None:
        """End the process, whatever comes of its last acts, even of the line in the log."""
        deadline = threading.Timer(LAST_ACTS_S, self.leave, [os.EX_SOFTWARE])
        deadline.daemon = True
        deadline.start()
        try:
            log.critical(why, then="end of the process")
            self.abandon()
        finally:
            self.leave(os.EX_SOFTWARE)
