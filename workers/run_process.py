"""A process that submits one run, as the worker that started it sees it.

The one idea: it may hang for reasons nobody can help, such as a network file system that is away. So it says whenever
it got on, and when it has not for long it is ended.
"""

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Self

from promptmill.store.schedule_runs import RunRow
from promptmill.store.schedules import ScheduleRow

STUCK_S = 120.0
"""So long a process may go without getting on."""
_PROGRAM = "from workers.run_submission import main; main()"
_MANY = 65_536


@dataclass(slots=True)
class RunProcess:
    """One process and its run.

    Attributes:
        former: the run before it was taken.
        run: the run as it was taken.
        kept_at: when the take was last renewed; of `time.monotonic`.
        is_told: its run has an outcome, though the process may not have gone yet.
    """

    schedule: ScheduleRow
    former: RunRow
    run: RunRow
    process: "subprocess.Popen[bytes]"
    pipe: int
    got_on_at: float
    kept_at: float
    is_told: bool = False

    @classmethod
    def start(cls, schedule: ScheduleRow, former: RunRow, run: RunRow) -> Self:
        """Begin."""
        ours, its = os.pipe()
        os.set_blocking(ours, False)
        command = [sys.executable, "-P", "-c", _PROGRAM, schedule.id, run.due_at.isoformat(), str(its)]
        try:
            # In a session of its own, because Ctrl-C in a worker's terminal lets what is under way finish.
            process = subprocess.Popen(  # noqa: S603  # no word of a person's is in it
                command, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=[its]
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(its)
        now = time.monotonic()
        return cls(schedule, former, run, process, ours, got_on_at=now, kept_at=now)

    @property
    def is_stuck(self) -> bool:
        """Whether it has not got on for long."""
        with contextlib.suppress(BlockingIOError):
            if os.read(self.pipe, _MANY):
                self.got_on_at = time.monotonic()
        return time.monotonic() - self.got_on_at > STUCK_S

    @property
    def fault(self) -> str | None:
        """How it ended, where it did not end well."""
        code = self.process.returncode
        if not code:
            return None
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"the process that reads the file {how}, see the worker's log"

    def has_ended(self) -> bool:
        """Whether it has gone; then its pipe is closed."""
        if self.process.poll() is None:
            return False
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1
        return True

    def end(self, within_s: float) -> None:
        """Ask it to end, and make it do so after a while; one that nobody can end is left."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(within_s)
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        self.has_ended()
