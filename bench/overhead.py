"""What Promptmill costs per job: no limits, no latency, beside a bare loop of the same HTTP client.

Both sides send the same prompts to the same simulated Claude (a process of its own), the loop with a
semaphore and no queue, no database and no limiter. Rates and CPU are measured over the same machine in the
same run, so read the ratios. The simulator shares the machine: on two cores neither side has both.

    .venv/bin/python bench/overhead.py --jobs 5000
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from promptmill.claude.client import ClaudeClient
from promptmill.claude.keys import Key
from promptmill.prompts import Prompt
from promptmill.testing import a_prompt, simulated_claude

IN_FLIGHT = 100


@dataclass(frozen=True)
class Figures:
    """What one side took: wall seconds and CPU seconds of its own processes (without the simulator's)."""

    jobs: int
    wall_s: float
    cpu_s: float

    def row(self, name: str) -> str:
        """One line of the table."""
        return f"{name:<22}{self.jobs / self.wall_s:>10.0f}{1000 * self.cpu_s / self.jobs:>12.2f}"


def main() -> None:
    """Measure both sides and print the ratios."""
    options = read_options()
    prompts = [a_prompt(f"What is {number} + {number}?") for number in range(options.jobs)]
    with simulated_claude(first_token_s=0, tokens_per_s=0, mean_output_tokens=50, seed=3) as claude:
        bare = run_bare_loop(prompts, claude.url)
        ours = run_promptmill(prompts, claude.url, options)
    print(f"{'':<22}{'jobs/s':>10}{'CPU ms/job':>12}")
    print(bare.row("bare loop"))
    print(ours.row("promptmill run"))
    print(
        f"ratio: {bare.wall_s / ours.wall_s:.2f} of the loop's rate, {ours.cpu_s / bare.cpu_s:.1f} times its CPU"
    )


def run_bare_loop(prompts: list[Prompt], url: str) -> Figures:
    """The same client in a loop with a semaphore."""
    key = Key(label="bench", secret=SecretStr("sk-simulated"), account="default")

    async def run() -> None:
        client = ClaudeClient(base_url=url, max_connections=IN_FLIGHT)
        slots = asyncio.Semaphore(IN_FLIGHT)

        async def call(prompt: Prompt) -> None:
            async with slots:
                await client.create(prompt, key)

        await asyncio.gather(*map(call, prompts))
        await client.aclose()

    started, before = time.perf_counter(), time.process_time()
    asyncio.run(run())
    return Figures(len(prompts), time.perf_counter() - started, time.process_time() - before)


def run_promptmill(prompts: list[Prompt], url: str, options: argparse.Namespace) -> Figures:
    """`promptmill run` with its worker and embedded servers; wall time from the first call to the last commit."""
    with tempfile.TemporaryDirectory(prefix="promptmill-bench-") as folder:
        source = Path(folder) / "prompts.jsonl"
        rows = ({"custom_id": f"row-{n}", "params": dict(prompt.body)} for n, prompt in enumerate(prompts))
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "PROMPTMILL_HOME": f"{folder}/home",
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "sk-simulated",
            "PROMPTMILL_RPM": "0",
            "PROMPTMILL_ITPM": "0",
            "PROMPTMILL_OTPM": "0",
            "PROMPTMILL_CONCURRENCY": str(IN_FLIGHT),
        }
        command = [sys.executable, "-m", "producers.cli", "run", str(source), "-o", f"{folder}/out.jsonl"]
        command += ["--workers", str(options.workers), "--json"]
        before = _cpu_of_children()
        done = subprocess.run(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True, check=True
        )
        status = json.loads(done.stdout)
        return Figures(len(prompts), float(status["elapsed_s"]), _cpu_of_children() - before)


def _cpu_of_children() -> float:
    """Seconds of CPU of all ended children and their children: the command, worker, submit and export included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
