"""The rate limiter in a program of plain functions and threads: 8 threads, 30 calls, and not one is refused.

    python examples/limiter_blocking.py

What it needs, and what is worth knowing, stands in `limiter_alone.py`.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime

import httpx

from promptmill.claude.headers import read_headroom, read_retry_after
from promptmill.dimensions import Amounts
from promptmill.embedded import throwaway_redis
from promptmill.limits import BlockingLimiter, Pool, RedisLimiter
from promptmill.simulator.config import SimulatorConfig
from promptmill.simulator.process import running_simulator
from promptmill.usage import Usage

MODEL = "claude-haiku-5-5"
POOL = Pool(account="my account", group=MODEL)
QUESTIONS = [f"What is {number} + {number}?" for number in range(30)]


def asker(client: httpx.Client, limiter: BlockingLimiter) -> Callable[[str], httpx.Response]:
    """The function that the threads run."""

    def ask(question: str) -> httpx.Response:
        guess = Amounts(requests=1, input_tokens=len(question) / 3, output_tokens=300)
        with limiter.permit(POOL, guess, patience=300) as call:
            message = {"role": "user", "content": question}
            reply = client.post(
                "/v1/messages", json={"model": MODEL, "max_tokens": 300, "messages": [message]}
            )
            headroom = read_headroom(reply.headers)
            if reply.status_code in {429, 529}:
                wait = read_retry_after(reply.headers, now=datetime.now(UTC))
                call.refused(reply.status_code, retry_after=wait, headroom=headroom)
            elif reply.is_success:
                usage = Usage.from_reply(reply.json()["usage"])
                call.used(Amounts(1, usage.limited_input_tokens, usage.output_tokens), headroom)
        return reply

    return ask


def main(redis_url: str, base_url: str) -> None:
    """Ask everything with a few threads; the limiter decides when each call begins."""
    headers = {
        "x-api-key": os.environ.get("ANTHROPIC_API_KEY", "simulated"),
        "anthropic-version": "2023-06-01",
    }
    with (
        BlockingLimiter(lambda: RedisLimiter(redis_url)) as limiter,
        httpx.Client(base_url=base_url, headers=headers, timeout=600) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        replies = list(threads.map(asker(client, limiter), QUESTIONS))
        print(f"{sum(reply.is_success for reply in replies)} of {len(replies)} calls were answered")
        print(
            f"{sum(reply.status_code == httpx.codes.TOO_MANY_REQUESTS for reply in replies)} were refused (429)"
        )
        print(f"next call held back by: {limiter.peek(POOL).held_by or 'nothing'}")


if __name__ == "__main__":
    with ExitStack() as own:
        redis = os.environ.get("REDIS_URL") or own.enter_context(throwaway_redis())
        claude = os.environ.get("ANTHROPIC_BASE_URL")
        if not claude:
            claude = own.enter_context(running_simulator(SimulatorConfig(port=0, tokens_per_s=400))).url
        main(redis, claude)
