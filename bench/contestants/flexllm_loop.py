"""flexllm 0.17.10, the fastest loop found on PyPI, in an environment of its own: no queue, no database."""

import asyncio
from typing import Any

from course import Course, Lap, Stopwatch, read_course
from flexllm.clients.claude import ClaudeClient


async def run(course: Course) -> Lap:
    """Its batch call, without its limit of calls a second and without its progress bar."""
    client = ClaudeClient(
        api_key="sk-simulated",
        base_url=f"{course.url}/v1",
        model=course.bodies[0]["model"],
        concurrency_limit=course.in_flight,
        max_qps=0,
    )
    if course.warm:
        await ask(client, course.warm)
    watch = Stopwatch()
    await ask(client, course.bodies)
    return watch.lap()


async def ask(client: ClaudeClient, bodies: list[dict[str, Any]]) -> None:
    """All of them at once, as a user would."""
    answers = await client.chat_batch(
        [body["messages"] for body in bodies], max_tokens=bodies[0]["max_tokens"], show_progress=False
    )
    if failed := sum(1 for answer in answers if answer.error):
        raise SystemExit(f"flexllm: {failed} of {len(bodies)} calls failed")


if __name__ == "__main__":
    asyncio.run(run(read_course())).tell()
