"""What the task tells Celery of a job's end: a word, and nothing of the job."""

import gc
import weakref

import pytest

from workers import lifecycle, tasks
from workers.verdicts import Deferred, Failed


class Prompt:
    """Can be watched, unlike a text."""


@pytest.mark.parametrize("verdict", [Deferred, Failed, KeyError])
async def test_what_celery_keeps_of_a_failed_job_does_not_keep_its_prompt(
    verdict: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[weakref.ref[Prompt]] = []

    async def answer(_job_id: str, _dispatch: int) -> None:
        prompt = Prompt()
        watched.append(weakref.ref(prompt))
        raise verdict("why")

    monkeypatch.setattr(lifecycle, "answer", answer)
    gc.disable()
    try:
        with pytest.raises(Exception, match=r"why|unexpected KeyError") as kept:
            await tasks.answer.body("job", 1)
        assert watched[0]() is None
        assert kept.value.__context__ is None
    finally:
        gc.enable()
