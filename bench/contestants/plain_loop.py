"""What many write first: a semaphore, httpx, and retries with exponential backoff and full jitter.

    python plain_loop.py URL BODIES.jsonl IN_FLIGHT

It obeys retry-after, never gives up, and waits ten minutes for an answer, so that none is paid for twice.
"""

import asyncio
import json
import random
import sys
from pathlib import Path

import httpx

FIRST_S, LONGEST_S = 1.0, 60.0
HEADERS = {"x-api-key": "sk-simulated", "anthropic-version": "2026-10-21"}


async def main(url: str, bodies: list[dict[str, object]], in_flight: int) -> None:
    slots = asyncio.Semaphore(in_flight)
    limits = httpx.Limits(max_connections=in_flight)
    async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=600, limits=limits) as client:

        async def ask(body: dict[str, object]) -> None:
            async with slots:
                await until_answered(client, body)

        await asyncio.gather(*map(ask, bodies))


async def until_answered(client: httpx.AsyncClient, body: dict[str, object]) -> None:
    tries = 0
    while True:
        reply = await client.post("/v1/messages", json=body)
        if reply.status_code == httpx.codes.OK:
            return
        wait = random.uniform(0, min(LONGEST_S, FIRST_S * 2**tries))
        await asyncio.sleep(max(wait, float(reply.headers.get("retry-after", 0))))
        tries += 1


if __name__ == "__main__":
    lines = Path(sys.argv[2]).read_text().splitlines()
    asyncio.run(main(sys.argv[1], [json.loads(line) for line in lines], int(sys.argv[3])))
