"""Child processes: started on a leash with a log of their own, and stopped politely before they are killed."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from producers.leash import leashed
from promptmill.logs import scrub

_POLL_S = 0.05
_TAIL_BYTES = 16_384
_LINE_LENGTH = 300
_SENTENCE = re.compile(r"promptmill( \w+)?: ")
"""How a program of ours begins what a person is to read; what stands above it in the log explains nothing more."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process we started; `log_start` is where its lines begin in the log it shares with its predecessors."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    log_start: int
    started_at: float

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def age_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started_at

    @property
    def how_it_ended(self) -> str:
        """`signal 9` or `exit code 1`."""
        code = self.process.returncode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def last_words(self, lines: int = 8) -> list[str]:
        """The end of what it wrote, from its last sentence on; without anything that looks like a secret."""
        with self.log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self.log_start, end - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
        words = [scrub(line).rstrip() for line in text.splitlines() if line.strip()][-lines:]
        said = [place for place, word in enumerate(words) if _SENTENCE.match(word)]
        shown = words[said[-1] :] if said else words
        return [word if len(word) <= _LINE_LENGTH else f"{word[:_LINE_LENGTH]}…" for word in shown]


def start(name: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> Child:
    """Start `command` on a leash, in a session of its own, so that Ctrl-C reaches only us; output goes to `log`."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with log.open("ab") as output:
        log_start = output.tell()  # before the child writes: its place in the file is ours
        process = subprocess.Popen(  # noqa: S603  # the command is built by us; no word of a user's is in it
            leashed(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return Child(name, process, log, log_start, time.monotonic())


def ask_to_stop(children: Iterable[Child]) -> None:
    """Send SIGTERM to those that run; asked a second time, a worker hands back what it has at once."""
    for child in children:
        if child.runs:
            child.process.send_signal(signal.SIGTERM)


def await_end(children: Sequence[Child], within_s: float) -> bool:
    """Wait until all have ended, at most `within_s` seconds; whether they have."""
    deadline = time.monotonic() + within_s
    while any(child.runs for child in children):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def kill(children: Iterable[Child]) -> None:
    """End at once those that run."""
    for child in children:
        if child.runs:
            child.process.kill()
            child.process.wait()
