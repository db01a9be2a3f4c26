"""The same work done three ways in the same run: by Promptmill, by a plain loop with retries, and by a peer.

Each has a simulated Claude of its own with the same limits and the same prompts, of which two limits bind
almost equally. Printed are ratios to Promptmill: how long it took, and how often the server was asked.

    ./dev bench peers                               # Promptmill and the plain loop
    ./dev bench peers --curator ENV/bin/python      # and bespokelabs-curator, from an environment of its own:
                                                    #   python3 -m venv ENV
                                                    #   ENV/bin/pip install bespokelabs-curator==0.1.31   (0.9 GB)
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The surroundings must not configure a run.
for _name in [name for name in os.environ if name.startswith(("PROMPTMILL_", "ANTHROPIC_"))]:
    del os.environ[_name]

from realtime import loads  # noqa: E402  # after the cleaning
from realtime.rows import BALANCED, SMALL, Row  # noqa: E402
from realtime.stage import LATENCY, play  # noqa: E402

from promptmill.pricing import price_of, usd  # noqa: E402
from promptmill.testing import SimulatorHandle, simulated_claude  # noqa: E402
from promptmill.usage import Usage  # noqa: E402

CONTESTANTS = Path(__file__).parent / "contestants"
SEED = 7
LEARNED = Row(name="learned", what="Promptmill, nothing configured", loads=[BALANCED])
CONFIGURED = Row(name="told", what="Promptmill, limits configured", loads=[BALANCED], configured=1.0)


@dataclass(frozen=True)
class Result:
    """What one contestant did, by the server's book."""

    name: str
    answered: int
    makespan_s: float
    refused: int
    requests: int
    twice_nanos: int

    @classmethod
    def of(cls, name: str, book: dict[str, Any]) -> "Result":
        """Read it from the book."""
        calls = book["calls"]
        start = book["first_arrival_s"]
        return cls(
            name=name,
            answered=len(book["prompts"]),
            makespan_s=max(call["ends_s"] for call in calls) - start,
            refused=book["refused"]["by_status"].get("429", 0),
            requests=book["requests"],
            twice_nanos=billed_twice(calls),
        )

    def line(self, best: "Result") -> str:
        """One row of the table."""
        return (
            f"{self.name:<40}{self.answered:>9}{self.makespan_s:>10.1f}s{self.makespan_s / best.makespan_s:>7.2f}"
            f"{self.refused:>8}{self.requests / self.answered:>14.2f}{usd(self.twice_nanos):>16}"
        )


def main() -> None:
    options = read_options()
    [jobs] = loads.counts([BALANCED], options.seconds, SMALL)
    contestants: list[Callable[[], Result]] = [
        lambda: Result.of(LEARNED.what, play(LEARNED, options.seconds, seed=SEED).ledger),
        *(lambda n=n: plain_loop(jobs, n) for n in options.in_flight),
    ]
    if options.curator:
        contestants.append(lambda: curator(jobs, options.curator, options.patience))
    print(f"{jobs} prompts, {options.seconds:g} s of the limits by rate alone")
    print(
        f"{'':<40}{'answered':>9}{'makespan':>11}{'ratio':>7}{'429':>8}{'asked/answer':>14}{'paid twice':>16}"
    )
    with ThreadPoolExecutor(len(contestants)) as threads:
        # Migrations are not made for threads: the second of ours runs after the first.
        others = [threads.submit(each) for each in contestants[1:]]
        results = [
            contestants[0](),
            Result.of(CONFIGURED.what, play(CONFIGURED, options.seconds, seed=SEED).ledger),
        ]
        results += [each.result() for each in others]
    for result in results:
        print(result.line(results[0]))
    if not options.curator:
        print("No peer was run: see --help for how to make an environment for bespokelabs-curator.")


def plain_loop(jobs: int, in_flight: int) -> Result:
    """A semaphore of that size."""
    return contest(
        f"semaphore of {in_flight}, backoff, full jitter",
        jobs,
        lambda url, source: [sys.executable, str(CONTESTANTS / "plain_loop.py"), url, source, str(in_flight)],
    )


def curator(jobs: int, python: Path, patience_s: float) -> Result:
    """bespokelabs-curator in that environment."""
    script = str(CONTESTANTS / "curator_batch.py")
    return contest(
        "bespokelabs-curator 0.1.31",
        jobs,
        lambda url, source: [str(python), script, url, source, str(round(SMALL.requests))],
        patience_s=patience_s,
    )


def contest(
    name: str, jobs: int, command: Callable[[str, str], Sequence[str]], *, patience_s: float = 3600
) -> Result:
    """Run a contestant's program until it ends, or its time is up; what the book says then."""
    rpm, itpm, otpm = SMALL
    settings = {
        "hidden_request_burst_s": LEARNED.hidden_s,
        "mean_output_tokens": BALANCED.output_tokens,
        "tokens_per_s": LEARNED.tokens_per_s,
        "seed": SEED,
    }
    with (
        simulated_claude(rpm=rpm, itpm=itpm, otpm=otpm, **settings, **LATENCY) as claude,
        tempfile.TemporaryDirectory(prefix="promptmill-peer-") as folder,
    ):
        source = Path(folder) / "bodies.jsonl"
        source.write_text("".join(json.dumps(body) + "\n" for body in bodies(jobs)))
        with (Path(folder) / "log").open("wb") as log:
            try:
                subprocess.run(
                    command(claude.url, str(source)),
                    env=environment(folder, claude),
                    cwd=folder,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=patience_s,
                    check=True,
                )
            except subprocess.TimeoutExpired:
                name += f" (ended after {patience_s:g} s)"
        return Result.of(name, claude.ledger(detail=True))


def bodies(jobs: int) -> list[dict[str, Any]]:
    """The requests that Promptmill makes of the same prompts."""
    return [
        {
            "model": loads.MODEL,
            "max_tokens": loads.MOST_OUTPUT,
            "messages": [{"role": "user", "content": row["prompt"]}],
        }
        for row in BALANCED.prompts(jobs, 1.0, SEED)
    ]


def environment(folder: str, claude: SimulatorHandle) -> dict[str, str]:
    """Of a contestant: where Claude is, and nothing that calls home or looks something up elsewhere."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": folder,
        "ANTHROPIC_API_KEY": "sk-simulated",
        "ANTHROPIC_BASE_URL": claude.url,
        "CURATOR_CACHE_DIR": f"{folder}/cache",
        "TELEMETRY_ENABLED": "false",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HF_HUB_OFFLINE": "1",
    }


def billed_twice(calls: Sequence[dict[str, Any]]) -> int:
    """Nano-dollars for every answer to a prompt that had been answered."""
    seen: set[str] = set()
    twice = 0
    for call in calls:
        if call["prompt"] in seen:
            usage = Usage(input_tokens=call["input_tokens"], output_tokens=call["output_tokens"])
            twice += price_of(usage, model=loads.MODEL) or 0
        seen.add(call["prompt"])
    return twice


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=100.0, help="of work by rate alone")
    parser.add_argument(
        "--in-flight", type=int, nargs="+", default=[30, 100], help="sizes of the plain loop's semaphore"
    )
    parser.add_argument("--curator", type=Path, metavar="PYTHON", help="an interpreter that has it")
    parser.add_argument("--patience", type=float, default=900.0, help="seconds after which curator is ended")
    return parser.parse_args()


if __name__ == "__main__":
    main()
