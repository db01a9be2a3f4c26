"""`celery -A answering_worker worker`: the product's app and task, with a stand-in for what answers.

The way of a job below the task has tests of its own; here it is only asked what Celery makes of its end.
"""

import asyncio
import sys
from types import ModuleType

import workers
from workers.verdicts import Deferred, Elsewhere, Failed, Withdrawn

PROMPT = "a secret prompt that nobody may see"

lifecycle = ModuleType("workers.lifecycle")
sys.modules["workers.lifecycle"] = workers.lifecycle = lifecycle  # type: ignore[attr-defined]  # before the task asks


async def answer(job_id: str, dispatch: int) -> None:
    await asyncio.sleep(0)
    assert dispatch == 7
    cause = ValueError(PROMPT)
    if job_id == "job_deferred":
        raise Deferred("overloaded, again in 3.0 s") from cause
    if job_id == "job_failed":
        raise Failed("prompt_rejected: 400") from cause
    if job_id == "job_canceled":
        raise Withdrawn("canceled") from cause
    if job_id == "job_elsewhere":
        raise Elsewhere("running") from cause
    if job_id == "job_unexpected":
        raise cause


lifecycle.answer = answer  # type: ignore[attr-defined]  # a stand-in

from workers.app import app  # noqa: E402  # only now

__all__ = ["app"]
