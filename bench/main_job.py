"""The main job under each limit in turn: no 429, the ledger's cost to the nano-dollar, makespan near the least.

Runs `promptmill run` as a person types it, on a file of real prompts against a simulated Claude, once for
every binding dimension and number of worker processes, and prints one row each. The first pass, without
limits, measures what the prompts use; it is also the baseline of what the machine can do. The least makespan
is by rate alone: `max(total / limit)` over the dimensions, what a client needs that never saves up; the gentle
start and the last answer come on top of it. Limits are configured on our side as they are on the server's
(a ceiling, never exceeded), or with `--learned` not at all. A run waits for its limit nearly all of the time,
so several can go on at once (`--at-once`) without disturbing each other.

    .venv/bin/python bench/main_job.py --data gsm8k-test.jsonl --template '{{ question }}' --seconds 180
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptmill.testing import SimulatorHandle, simulated_claude

MODEL = "claude-sonnet-5"
LATENCY = {"first_token_s": 0.5, "tokens_per_s": 120, "jitter": 0.2}
LIMITS = ("rpm", "itpm", "otpm")
ROOMY = 4.0
"""How many times what the binding dimension allows the other two allow."""


@dataclass(frozen=True)
class Totals:
    """What all prompts of the file use together."""

    requests: int
    input_tokens: int
    output_tokens: int


def main() -> int:
    """Run every case; 1 when one of them breaks the promise."""
    options = read_options()
    print(
        f"{'binding':<14}{'workers':>8}{'429':>5}{'answered once':>15}{'cost = ledger':>15}{'makespan':>10}{'least':>8}{'ratio':>7}"
    )
    with simulated_claude(**LATENCY, seed=7) as claude:
        _, seconds = run_once(options, claude, workers=1, limits={})
        totals = totals_of(claude)
        print(f"{'none':<14}{1:>8}  {totals} in {seconds:.1f} s", flush=True)
    cases = [(binding, workers) for workers in options.workers for binding in options.bindings]
    with ThreadPoolExecutor(options.at_once) as threads:
        kept = list(threads.map(lambda case: run_case(options, case[0], case[1], totals), cases))
    return 0 if all(kept) else 1


def run_case(options: argparse.Namespace, binding: str, workers: int, totals: Totals) -> bool:
    """One row; False when it breaks the promise."""
    limits = {
        limit: getattr(totals, name) * 60 / options.seconds * (1 if name == binding else ROOMY)
        for limit, name in (("rpm", "requests"), ("itpm", "input_tokens"), ("otpm", "output_tokens"))
    }
    with simulated_claude(**limits, burst_s=options.burst, **LATENCY, seed=7) as claude:
        told = dict.fromkeys(limits) if options.learned else limits
        status, makespan = run_once(options, claude, workers=workers, limits=told)
        ledger = claude.ledger()
    refused = ledger["refused"]["total"]
    once: bool = (
        ledger["answered"] == {"1": totals.requests} and status["jobs"]["succeeded"] == totals.requests
    )
    equal: bool = status["cost_usd"] == ledger["billed"]["cost_usd"]
    ratio = makespan / options.seconds
    print(
        f"{binding:<14}{workers:>8}{refused:>5}{once!s:>15}{equal!s:>15}{makespan:>10.1f}{options.seconds:>8.1f}{ratio:>7.3f}",
        flush=True,
    )
    return refused == 0 and once and equal and ratio <= 1.10


def run_once(
    options: argparse.Namespace, claude: SimulatorHandle, *, workers: int, limits: Mapping[str, float | None]
) -> tuple[dict[str, Any], float]:
    """`promptmill run` in a folder of its own; the batch's status and its seconds from first call to end."""
    with tempfile.TemporaryDirectory(prefix="promptmill-bench-") as folder:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "PROMPTMILL_HOME": f"{folder}/home",
            "ANTHROPIC_BASE_URL": claude.url,
            "ANTHROPIC_API_KEY": "sk-simulated",
            **{
                f"PROMPTMILL_{name.upper()}": str(limits.get(name, 0))
                for name in LIMITS
                if limits.get(name, 0) is not None
            },
        }
        command = [
            sys.executable,
            "-m",
            "producers.cli",
            "run",
            str(options.data),
            "-o",
            f"{folder}/out.jsonl",
        ]
        command += ["--model", MODEL, "--max-tokens", "1024", "--workers", str(workers), "--json"]
        command += ["--template", options.template]
        if options.columns:
            command += ["--columns", options.columns]
        done = subprocess.run(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(f"promptmill run ended with {done.returncode}")
        status: dict[str, Any] = json.loads(done.stdout)
        return status, float(status["elapsed_s"])


def totals_of(claude: SimulatorHandle) -> Totals:
    """What the simulator served."""
    billed = claude.ledger()["billed"]
    return Totals(
        requests=billed["answers"],
        input_tokens=billed["usage"]["input_tokens"],
        output_tokens=billed["usage"]["output_tokens"],
    )


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--template", default="{{ question }}")
    parser.add_argument("--columns", help="names of the columns of a file without a header")
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="the least makespan to set the limits for"
    )
    parser.add_argument(
        "--burst", type=float, default=60.0, help="seconds of a limit that the server's buckets hold"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--bindings", nargs="+", default=["requests", "input_tokens", "output_tokens"])
    parser.add_argument("--at-once", type=int, default=1, help="cases that run at the same time")
    parser.add_argument(
        "--learned", action="store_true", help="configure no limits: learn them from the headers"
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
