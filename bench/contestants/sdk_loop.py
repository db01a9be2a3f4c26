"""The official SDK with a semaphore, as its README shows it: no queue, no database, answers thrown away.

With the word `aiohttp` behind the course it uses the SDK's other transport, which its README recommends for many
calls at once.
"""

import asyncio
import sys
from typing import Any

from anthropic import AsyncAnthropic, DefaultAioHttpClient
from course import Course, Lap, Stopwatch, read_course


async def run(course: Course, transport: str) -> Lap:
    """Each client's limits as they come: more connections than are in flight here."""
    options = {"http_client": DefaultAioHttpClient()} if transport == "aiohttp" else {}
    async with AsyncAnthropic(api_key="sk-simulated", base_url=course.url, **options) as client:
        slots = asyncio.Semaphore(course.in_flight)

        async def call(body: dict[str, Any]) -> None:
            async with slots:
                await client.messages.create(**body)

        await asyncio.gather(*map(call, course.warm))
        watch = Stopwatch()
        await asyncio.gather(*map(call, course.bodies))
        return watch.lap()


if __name__ == "__main__":
    asyncio.run(run(read_course(), sys.argv[5])).tell()
