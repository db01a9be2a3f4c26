"""What reaches Redis while a row runs: the limiter's scripts by name, denied asks, everything else.

The one idea: MONITOR shows each command with its client, and the commands of a script after it, so a grant is
seen by what the acquire script wrote. At the rates of these rows watching costs Redis next to nothing.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from redis import ConnectionError as RedisGone
from redis import Redis

from promptmill.limits import Pacing
from promptmill.limits.scripts import script_sha

SCRIPTS = ("acquire", "beat", "confirm", "expire", "peek", "penalise", "release", "settle")
_PER_CALL = ("acquire", "confirm", "settle", "release", "penalise")
_SAME_TRIP_S = 0.0003


@dataclass
class CommandCount:
    """Counts of one run.

    Attributes:
        scripts: calls of each of the limiter's scripts.
        trips: times that one client sent one or several of them together.
        granting: acquires that granted something.
        others: commands of everybody else: the broker, the dispatcher.
    """

    scripts: Counter[str] = field(default_factory=Counter)
    trips: int = 0
    granting: int = 0
    others: int = 0

    def per_job(self, jobs: int) -> dict[str, float]:
        """The figures of the table, each divided by the number of jobs."""
        calls = sum(self.scripts[name] for name in _PER_CALL)
        return {
            "scripts": calls / jobs,
            "denied": (self.scripts["acquire"] - self.granting) / jobs,
            "round_trips": self.trips / jobs,
            "other_commands": self.others / jobs,
        }


@contextmanager
def counted_commands(url: str) -> Iterator[CommandCount]:
    """Count until the end of the block."""
    count = CommandCount()
    with Redis.from_url(url) as watching, watching.monitor() as monitor:
        reader = threading.Thread(target=_read, args=(monitor, count), daemon=True)
        reader.start()
        yield count
    reader.join(5)


def _read(monitor: Any, count: CommandCount) -> None:
    names = {script_sha(name, Pacing()): name for name in SCRIPTS}
    asked, last = "", dict[str, float]()
    try:
        for each in monitor.listen():
            command = each["command"].split(" ")
            if each["client_type"] == "lua":
                if asked == "acquire" and command[0].upper() == "HSET":
                    count.granting += 1
                    asked = ""
                continue
            asked = names.get(command[1], "") if command[0].upper() == "EVALSHA" else ""
            if not asked:
                count.others += 1
                continue
            count.scripts[asked] += 1
            client = f"{each['client_address']}:{each['client_port']}"
            if asked in _PER_CALL:
                count.trips += each["time"] - last.get(client, 0.0) > _SAME_TRIP_S
                last[client] = each["time"]
    except (RedisGone, ValueError, OSError):
        return


def script_micros(url: str) -> float:
    """Microseconds that this Redis has spent in scripts since its start."""
    with Redis.from_url(url) as redis:
        stats: Any = redis.info("commandstats")
    return float(stats.get("cmdstat_evalsha", {}).get("usec", 0))
