"""The examples of a limiter without a queue run as they stand, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from promptmill.simulator.config import SimulatorConfig
from promptmill.simulator.process import running_simulator

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize("example", ["limiter_alone.py", "limiter_blocking.py"])
def test_thirty_calls_are_answered_and_none_is_refused(example: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / example)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "30 of 30 calls were answered" in done.stdout
    assert "\n0 were refused" in done.stdout
    assert done.stderr == ""


def test_two_programs_on_one_redis_share_the_limits(clean_redis: str, tmp_path: Path) -> None:
    server = SimulatorConfig(port=0, rpm=1200, hidden_request_burst_s=1.0, tokens_per_s=400)
    with running_simulator(server) as simulator:
        environment = {"REDIS_URL": clean_redis, "ANTHROPIC_BASE_URL": simulator.url}
        programs = [
            subprocess.Popen(
                [sys.executable, str(EXAMPLES / example)],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
            )
            for example in ("limiter_alone.py", "limiter_blocking.py")
        ]
        told = [program.communicate(timeout=120)[0].decode() for program in programs]
    assert all("30 of 30 calls were answered" in each for each in told), told
    assert all("\n0 were refused" in each for each in told), told


ALONE_WITHOUT_REDIS = """
import asyncio
from promptmill.dimensions import Amounts
from promptmill.errors import LimitReached
from promptmill.limits import Pool, RedisLimiter

async def main():
    async with RedisLimiter("redis://127.0.0.1:1") as limiter:
        try:
            await limiter.acquire(Pool("a", "b"), Amounts(1), patience=0.5)
        except LimitReached:
            print("too late")

asyncio.run(main())
"""


def test_a_program_of_ones_own_keeps_its_standard_output_to_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE_WITHOUT_REDIS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "too late\n", done.stderr
    assert "limiter_unreachable" in done.stderr
