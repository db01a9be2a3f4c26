"""What every contestant of `bench/overhead.py` is given and gives back; the standard library only, so that all can read it.

    python CONTESTANT.py URL BODIES.jsonl IN_FLIGHT WARM

The first WARM bodies are sent before the clocks start: connections are open and code is loaded then, for everybody
alike. What is measured goes to standard output as one JSON document.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Course:
    """Where to call, with what, and how many calls at once."""

    url: str
    warm: list[dict[str, Any]]
    bodies: list[dict[str, Any]]
    in_flight: int


@dataclass(frozen=True)
class Lap:
    """Wall seconds, and CPU seconds of the contestant's own processes by their parts."""

    wall_s: float
    cpu_s: dict[str, float] = field(default_factory=dict)

    def tell(self) -> None:
        """Hand it to the bench."""
        print(json.dumps(asdict(self)))


class Stopwatch:
    """Runs from its making; this process only."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def lap(self) -> Lap:
        """What has been used until now."""
        return Lap(time.perf_counter() - self.wall, {"the loop": time.process_time() - self.cpu})


def read_course() -> Course:
    """From the command line."""
    url, source, in_flight, warm = sys.argv[1:5]
    bodies = [json.loads(line) for line in Path(source).read_text().splitlines()]
    return Course(url, bodies[: int(warm)], bodies[int(warm) :], int(in_flight))
