"""Thousands of calls in flight in one process: how long they take, and what that process holds meanwhile.

As many prompts as slots, and a simulated Claude (a process of its own) that answers each after `--call-s`: so the
least makespan is that time, and what is above it went into starting the calls and putting the answers away. Ours
is `promptmill run` as a person types it, and its worker process is measured: queue, limiter, database and all.
Beside it, in the same run, what has none of these: the official SDK with a semaphore and, where it is given,
flexllm. Memory is what the process has for itself (USS) and all it has in memory (RSS) at its worst.

    ./dev bench in_flight --in-flight 1000 3000 5000
    ./dev bench in_flight --flexllm ENV/bin/python      # python3 -m venv ENV; ENV/bin/pip install flexllm==0.17.10
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from promptmill.testing import SimulatorHandle, a_prompt, simulated_claude

CONTESTANTS = Path(__file__).parent / "contestants"
LOOK_S = 0.25
MB = 1e6


@dataclass(slots=True)
class Watched:
    """What was seen of a process while it ran."""

    uss: int = 0
    rss: int = 0
    cpu_s: float = 0.0
    threads: int = 0

    def look(self, process: psutil.Process) -> None:
        """Once more."""
        memory = process.memory_full_info()
        used = process.cpu_times()
        self.uss, self.rss = max(self.uss, memory.uss), max(self.rss, memory.rss)
        self.cpu_s = used.user + used.system
        self.threads = max(self.threads, process.num_threads())


@dataclass(slots=True)
class Contest:
    """One program that has the prompts answered."""

    name: str
    command: Callable[[str, str, int], Sequence[str]]
    measured: Callable[[psutil.Process], psutil.Process | None] = field(default=lambda root: root)


def main() -> None:
    """One table."""
    options = read_options()
    print(
        f"calls of {options.call_s:g} s, as many slots as calls\n"
        f"{'':<22}{'calls':>7}{'started in':>12}{'makespan':>10}{'peak USS':>11}{'peak RSS':>11}{'CPU s':>8}{'ms/call':>9}"
    )
    for calls in options.in_flight:
        for contest in contests(options):
            if options.only not in (None, contest.name):
                continue
            print(run(contest, calls, options.call_s), flush=True)


def contests(options: argparse.Namespace) -> list[Contest]:
    """Who takes part."""
    chosen = [Contest("promptmill worker", promptmill_run, worker_of)]
    if not options.ours_alone:
        here = Path(sys.executable)
        chosen.append(Contest("anthropic SDK", loop("sdk_loop.py", here, "httpx2")))
        chosen.append(Contest("anthropic SDK, aiohttp", loop("sdk_loop.py", here, "aiohttp")))
        chosen.append(Contest("our client alone", loop("bare_loop.py", here)))
    if options.flexllm is not None:
        chosen.append(Contest("flexllm", loop("flexllm_loop.py", options.flexllm)))
    return chosen


def run(contest: Contest, calls: int, call_s: float) -> str:
    """One row: the server's book says when calls arrived and ended."""
    with simulated_claude(first_token_s=call_s, tokens_per_s=0, jitter=0, mean_output_tokens=50) as claude:
        with prompts_file(calls) as source:
            seen = watch(contest, claude, source, calls)
        book = claude.ledger(detail=True)
    arrived = [call["at_s"] for call in book["calls"]]
    if len(book["prompts"]) != calls or book["requests"] != calls:
        raise SystemExit(
            f"{contest.name}: {len(book['prompts'])} answers and {book['requests']} requests for {calls} calls"
        )
    makespan = book["last_reply_s"] - book["first_arrival_s"]
    return (
        f"{contest.name:<22}{calls:>7}{max(arrived) - min(arrived):>10.1f} s{makespan:>8.1f} s"
        f"{seen.uss / MB:>8.0f} MB{seen.rss / MB:>8.0f} MB{seen.cpu_s:>8.1f}{1000 * seen.cpu_s / calls:>9.2f}"
    )


def watch(contest: Contest, claude: SimulatorHandle, source: Path, calls: int) -> Watched:
    """Run it to its end, and look at the measured process meanwhile."""
    log = source.with_suffix(".log")
    with log.open("wb") as said:
        root = psutil.Popen(
            contest.command(claude.url, str(source), calls),
            env=environment(claude, source.parent, calls),
            cwd=source.parent,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        seen = look_until_its_end(root, contest.measured)
    if root.returncode != 0:
        raise SystemExit(f"{contest.name} ended with {root.returncode}: {log.read_text()[-2000:]}")
    return seen


def environment(claude: SimulatorHandle, folder: Path, calls: int) -> dict[str, str]:
    """Nothing of the surroundings but the path."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PROMPTMILL_HOME": f"{folder}/home",
        "ANTHROPIC_BASE_URL": claude.url,
        "ANTHROPIC_API_KEY": "sk-simulated",
        **dict.fromkeys(("PROMPTMILL_RPM", "PROMPTMILL_ITPM", "PROMPTMILL_OTPM"), "0"),
        "PROMPTMILL_CONCURRENCY": str(calls),
    }


def look_until_its_end(
    root: psutil.Popen, measured: Callable[[psutil.Process], psutil.Process | None]
) -> Watched:
    """What was seen of the process that is measured, among those of `root`."""
    seen, process = Watched(), None
    while root.poll() is None:
        try:
            process = process or measured(root)
            if process is not None:
                seen.look(process)
        except psutil.Error:
            pass  # it has just ended
        time.sleep(LOOK_S)
    return seen


def promptmill_run(_url: str, source: str, _calls: int) -> Sequence[str]:
    """As a person types it."""
    return [sys.executable, "-m", "producers.cli", "run", source, "-o", f"{source}.out.jsonl", "--json"]


def worker_of(root: psutil.Process) -> psutil.Process | None:
    """The worker among what `promptmill run` has started."""
    found = [child for child in root.children(recursive=True) if "celery" in " ".join(child.cmdline())]
    return found[0] if found else None


def loop(script: str, python: Path, *words: str) -> Callable[[str, str, int], Sequence[str]]:
    """A program of `bench/contestants`: a client and a semaphore."""
    return lambda url, source, calls: [
        str(python), str(CONTESTANTS / script), url, f"{source}.bodies", str(calls), "0", *words,
    ]  # fmt: skip


@contextmanager
def prompts_file(calls: int) -> Iterator[Path]:
    """Prompts as `promptmill run` reads them, and beside them as the contestants do."""
    with tempfile.TemporaryDirectory(prefix="promptmill-bench-") as folder:
        source = Path(folder) / "prompts.jsonl"
        bodies = [dict(a_prompt(f"What is {n} + {n}?").body) for n in range(calls)]
        rows = ({"custom_id": f"row-{n}", "params": body} for n, body in enumerate(bodies))
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        Path(f"{source}.bodies").write_text("".join(json.dumps(body) + "\n" for body in bodies))
        yield source


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1000, 3000])
    parser.add_argument("--call-s", type=float, default=20.0, help="how long each answer takes")
    parser.add_argument("--flexllm", type=Path, metavar="PYTHON", help="an interpreter that has it")
    parser.add_argument("--ours-alone", action="store_true", help="without the contestants")
    parser.add_argument("--only", metavar="NAME", help="one of them, as the table names it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
