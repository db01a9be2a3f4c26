"""Promptmill's own HTTP client in a loop with a semaphore: what the calls cost without queue, database and limiter."""

import asyncio
from typing import Any

import uvloop
from course import Course, Lap, Stopwatch, read_course
from pydantic import SecretStr

from promptmill.claude.client import ClaudeClient
from promptmill.claude.keys import Key
from promptmill.prompts import Prompt

KEY = Key(label="bench", secret=SecretStr("sk-simulated"), account="default")


async def run(course: Course) -> Lap:
    """On the event loop that our worker uses."""
    client = ClaudeClient(base_url=course.url, max_connections=course.in_flight)
    slots = asyncio.Semaphore(course.in_flight)

    async def call(body: dict[str, Any]) -> None:
        async with slots:
            await client.create(Prompt(body), KEY)

    await asyncio.gather(*map(call, course.warm))
    watch = Stopwatch()
    await asyncio.gather(*map(call, course.bodies))
    lap = watch.lap()
    await client.aclose()
    return lap


if __name__ == "__main__":
    uvloop.run(run(read_course())).tell()
