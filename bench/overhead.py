"""What a job costs through the whole product, with no limit and no latency, beside those who do less for it.

    ./dev bench overhead [--jobs 3000] [--rounds 3] [--workers 1 2 4] [--flexllm ENV/bin/python]
        # flexllm in an environment of its own:  python3 -m venv ENV; ENV/bin/pip install flexllm==0.17.10

All send the same prompts to the same simulated Claude, a process of its own that shares the machine, each in turn and
the whole row again in every round; ratios are taken within a round, and their median is printed. Counted is the CPU of
a contestant's own processes, from the first job to the last: for Promptmill that is submit, watch, workers and export.
The CPU of Redis is said apart, that of the simulator is left out (its figure is at the end). The others keep no
answer, count no token and survive no kill.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from promptmill.embedded import throwaway_postgres, throwaway_redis
from promptmill.testing import SimulatorHandle, a_prompt, simulated_claude

CONTESTANTS = Path(__file__).parent / "contestants"
ROOT = Path(__file__).parents[1]
OURS = "Promptmill"
PATIENCE_S = 120


@dataclass(frozen=True)
class Contestant:
    """A program of `bench/contestants`, and how it is called behind the course."""

    name: str
    program: str
    words: tuple[str, ...] = ()
    in_flight: int | None = None
    python: Path = Path(sys.executable)


@dataclass(frozen=True)
class Figures:
    """What one contestant took in one round; CPU in milliseconds per job."""

    jobs_per_s: float
    parts: Mapping[str, float]
    redis: float
    simulator: float

    @property
    def cpu(self) -> float:
        """Of all its own processes."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Surroundings:
    """The servers of all contestants."""

    claude: SimulatorHandle
    redis_url: str
    database_url: str | None
    broker_url: str | None


def main() -> None:
    options = read_options()
    contestants = chosen(options)
    rounds: list[dict[str, Figures]] = []
    with contextlib.suppress(KeyboardInterrupt), surroundings(options) as around:
        for _ in range(options.rounds):
            figures: dict[str, Figures] = {}
            for each in contestants:
                figures[each.name] = contest(each, around, options)
                print(line(each.name, figures[each.name]), flush=True)
            rounds.append(figures)
            print(flush=True)
    if rounds:
        print_table(rounds)


def chosen(options: argparse.Namespace) -> list[Contestant]:
    """Ours first, the others as far as they can be had."""
    ours = [
        Contestant(OURS if count == 1 else f"{OURS}, {count} workers", "promptmill_whole.py", (str(count),))
        for count in options.workers
    ]
    others = [
        Contestant("(a) SDK, semaphore", "sdk_loop.py", ("stock",)),
        Contestant("(a) on its aiohttp transport", "sdk_loop.py", ("aiohttp",)),
        Contestant("(b) Celery + SDK, prefork", "celery_sdk.py", ("prefork",), in_flight=options.prefork),
        Contestant("(b) Celery + SDK, threads", "celery_sdk.py", ("threads",)),
        Contestant("our bare loop", "bare_loop.py"),
    ]
    if options.flexllm:
        others.insert(4, Contestant("(c) flexllm", "flexllm_loop.py", python=options.flexllm))
    else:
        print("flexllm is left out: see --help for how to make an environment for it.\n")
    wanted = [each for each in ours + others if any(word in each.name for word in options.only)]
    return wanted if options.only else ours + others


@contextmanager
def surroundings(options: argparse.Namespace) -> Iterator[Surroundings]:
    """A Claude without limits and latency, a Redis, and a Postgres where one is asked for."""
    with (
        simulated_claude(first_token_s=0, tokens_per_s=0, mean_output_tokens=50, seed=3) as claude,
        throwaway_redis() as redis_url,
        throwaway_postgres() if options.postgres else nullcontext(None) as database_url,
    ):
        yield Surroundings(claude, redis_url, database_url, options.broker)


def contest(contestant: Contestant, around: Surroundings, options: argparse.Namespace) -> Figures:
    """Run one of them; ends the bench when it fails or a prompt was not answered exactly once."""
    jobs = options.warm + options.jobs
    around.claude.reset()
    with (
        tempfile.TemporaryDirectory(prefix="promptmill-bench-") as folder,
        Redis.from_url(around.redis_url) as redis,
    ):
        redis.flushall()
        source = Path(folder) / "bodies.jsonl"
        source.write_text("".join(f"{json.dumps(body)}\n" for body in bodies(jobs)))
        in_flight = contestant.in_flight or options.in_flight
        command = [
            str(contestant.python),
            str(CONTESTANTS / contestant.program),
            around.claude.url,
            str(source),
        ]
        command += [str(in_flight), str(options.warm), *contestant.words]
        served, used = around.claude.health()["cpu_s"], redis_cpu(redis)
        told = lap_of(command, environment(folder, around, in_flight))
        redis_ms, served_ms = redis_cpu(redis) - used, around.claude.health()["cpu_s"] - served
    if around.claude.ledger()["answered"] != {"1": jobs}:
        sys.exit(f"{contestant.name}: not every prompt was answered exactly once")
    return Figures(
        jobs_per_s=options.jobs / told["wall_s"],
        parts={part: 1000 * seconds / options.jobs for part, seconds in told["cpu_s"].items()},
        redis=1000 * redis_ms / jobs,
        simulator=1000 * served_ms / jobs,
    )


def lap_of(command: Sequence[str], variables: Mapping[str, str]) -> dict[str, Any]:
    """What the program told."""
    done = subprocess.run(
        command,
        env=variables,
        cwd=variables["HOME"],
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{Path(command[1]).name} ended with {done.returncode}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def bodies(count: int) -> Iterator[dict[str, Any]]:
    """Requests as small as they get: what is left is overhead."""
    return (dict(a_prompt(f"What is {number} + {number}?").body) for number in range(count))


def environment(folder: str, around: Surroundings, in_flight: int) -> dict[str, str]:
    """Nothing of the surroundings but what finds the programs."""
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": folder,
        "BENCH_BROKER": around.redis_url,
        "PROMPTMILL_HOME": f"{folder}/home",
        "PROMPTMILL_REDIS_URL": around.redis_url,
        "ANTHROPIC_BASE_URL": around.claude.url,
        "ANTHROPIC_API_KEY": "sk-simulated",
        "PROMPTMILL_CONCURRENCY": str(in_flight),
        **dict.fromkeys(("PROMPTMILL_RPM", "PROMPTMILL_ITPM", "PROMPTMILL_OTPM"), "0"),
    }
    others = {"PROMPTMILL_DATABASE_URL": around.database_url, "PROMPTMILL_BROKER_URL": around.broker_url}
    return variables | {name: url for name, url in others.items() if url}


def redis_cpu(redis: Redis) -> float:
    """Seconds of the server so far."""
    told: dict[str, Any] = redis.info("cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


def line(name: str, figures: Figures) -> str:
    """One contestant in one round."""
    parts = ", ".join(f"{part} {ms:.2f}" for part, ms in figures.parts.items())
    return f"{name:<30}{figures.jobs_per_s:>8.0f} jobs/s{figures.cpu:>8.2f} ms/job ({parts}; Redis {figures.redis:.2f})"


def print_table(rounds: Sequence[Mapping[str, Figures]]) -> None:
    """Medians, and the medians of the ratios to ours within a round."""
    print(
        f"{'median':<30}{'jobs/s':>8}{'CPU ms':>9}{'Redis':>8}{'ours is … as fast':>20}{'and takes … its CPU':>21}"
    )
    for name in rounds[0]:

        def median(figure: Callable[[Mapping[str, Figures], Figures], float], name: str = name) -> float:
            return statistics.median(figure(each, each[name]) for each in rounds)

        row = f"{name:<30}{median(lambda _, f: f.jobs_per_s):>8.0f}{median(lambda _, f: f.cpu):>9.2f}"
        row += f"{median(lambda _, f: f.redis):>8.2f}"
        if OURS in rounds[0]:
            row += f"{median(lambda r, f: r[OURS].jobs_per_s / f.jobs_per_s):>18.2f} x"
            row += f"{median(lambda r, f: r[OURS].cpu / f.cpu):>19.2f} x"
        print(row)
    simulator = statistics.median(figures.simulator for each in rounds for figures in each.values())
    print(f"The simulator took {simulator:.2f} ms of CPU per call.")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--warm", type=int, default=300, help="jobs before the clocks start")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=100, help="calls at once, for each contestant")
    parser.add_argument("--prefork", type=int, default=8, help="processes of Celery's prefork pool")
    parser.add_argument("--workers", type=int, nargs="+", default=[1], help="worker processes of ours")
    parser.add_argument("--postgres", action="store_true", help="ours on Postgres; its CPU is not counted")
    parser.add_argument(
        "--broker", metavar="URL", help="ours with its ids at this broker; its CPU is not counted"
    )
    parser.add_argument("--flexllm", type=Path, metavar="PYTHON", help="an interpreter that has it")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="contestants with such a word in the name"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
