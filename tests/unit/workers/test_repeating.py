"""What a process does again and again."""

import asyncio

from structlog.testing import capture_logs

from workers.repeating import Repeating


async def test_a_round_that_fails_is_logged_and_the_next_one_comes() -> None:
    rounds, went_well = 0, asyncio.Event()

    async def fail_first() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            raise ConnectionError("a password, perhaps")
        went_well.set()

    repeating = Repeating()
    with capture_logs() as logs:
        repeating.begin(fail_first, 0)
        async with asyncio.timeout(5):
            await went_well.wait()
        await repeating.stop()
    missed = {
        "event": "round_missed",
        "log_level": "warning",
        "act": "fail_first",
        "error": "ConnectionError",
    }
    assert logs == [missed]


async def test_the_end_interrupts_a_round() -> None:
    began, was_interrupted = asyncio.Event(), asyncio.Event()

    async def never_end() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            was_interrupted.set()

    repeating = Repeating()
    repeating.begin(never_end, 1)
    async with asyncio.timeout(5):
        await began.wait()
        await repeating.stop()
    assert was_interrupted.is_set()
