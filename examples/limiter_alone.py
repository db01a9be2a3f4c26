"""The rate limiter in a program of its own, without a queue: 30 calls at once, and not one is refused.

    python examples/limiter_alone.py

It uses REDIS_URL, and ANTHROPIC_BASE_URL with ANTHROPIC_API_KEY, where they are set; else a Redis and a simulated
Claude of its own. Start it twice with one Redis: both programs share the limits. `limiter_blocking.py` is the same
with threads.
"""

import asyncio
import os
from contextlib import ExitStack
from datetime import UTC, datetime

import httpx

from promptmill.claude.headers import read_headroom, read_retry_after
from promptmill.dimensions import Amounts
from promptmill.embedded import throwaway_redis
from promptmill.limits import Pool, RedisLimiter
from promptmill.simulator.config import SimulatorConfig
from promptmill.simulator.process import running_simulator
from promptmill.usage import Usage

MODEL = "claude-haiku-5-5"
POOL = Pool(account="my account", group=MODEL)  # whoever names the same pool shares its limits
QUESTIONS = [f"What is {number} + {number}?" for number in range(30)]


async def ask(client: httpx.AsyncClient, limiter: RedisLimiter, question: str) -> httpx.Response:
    """One call, made when the limits allow it."""
    guess = Amounts(requests=1, input_tokens=len(question) / 3, output_tokens=300)
    async with limiter.permit(POOL, guess, patience=300) as call:
        message = {"role": "user", "content": question}
        try:
            reply = await client.post(
                "/v1/messages", json={"model": MODEL, "max_tokens": 300, "messages": [message]}
            )
        except httpx.ConnectError:
            call.not_sent()  # everything is given back; after any other error the guess stays charged
            raise
        headroom = read_headroom(reply.headers)
        if reply.status_code in {429, 529}:
            wait = read_retry_after(reply.headers, now=datetime.now(UTC))
            call.refused(reply.status_code, retry_after=wait, headroom=headroom)
        elif reply.is_success:
            usage = Usage.from_reply(reply.json()["usage"])
            call.used(Amounts(1, usage.limited_input_tokens, usage.output_tokens), headroom)
    return reply


async def main(redis_url: str, base_url: str) -> None:
    """Ask everything at once; the limiter decides when each call begins."""
    headers = {
        "x-api-key": os.environ.get("ANTHROPIC_API_KEY", "simulated"),
        "anthropic-version": "2023-06-01",
    }
    async with (
        RedisLimiter(redis_url) as limiter,
        httpx.AsyncClient(base_url=base_url, headers=headers, timeout=600) as client,
    ):
        replies = await asyncio.gather(*(ask(client, limiter, question) for question in QUESTIONS))
        state = await limiter.peek(POOL)
    print(f"{sum(reply.is_success for reply in replies)} of {len(replies)} calls were answered")
    print(
        f"{sum(reply.status_code == httpx.codes.TOO_MANY_REQUESTS for reply in replies)} were refused (429)"
    )
    for limit in state.dimensions:
        used = f"{limit.used_per_minute:,.0f} of {limit.limit or 0:,.0f}"
        print(f"{limit.dimension.value}: {used} a minute, {limit.source.value}")


if __name__ == "__main__":
    with ExitStack() as own:
        redis = os.environ.get("REDIS_URL") or own.enter_context(throwaway_redis())
        claude = os.environ.get("ANTHROPIC_BASE_URL")
        if not claude:
            claude = own.enter_context(running_simulator(SimulatorConfig(port=0, tokens_per_s=400))).url
        asyncio.run(main(redis, claude))
