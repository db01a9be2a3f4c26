"""What the task tells Celery of a job's end: a word, and nothing of the job."""

import subprocess
import sys

import pytest

# In a process of its own: importing the task makes the process a worker, whose loop the other tests would start.
SCRIPT = """
import asyncio, gc, sys, weakref
from workers import lifecycle, tasks
from workers.verdicts import Deferred, Elsewhere, Failed, Withdrawn

watched = []

class Prompt:
    "Can be watched, unlike a text."

CAUSES = {each.__name__: each for each in (Deferred, Elsewhere, Failed, KeyError, Withdrawn)}

async def answer(cause, dispatch):
    prompt = Prompt()
    watched.append(weakref.ref(prompt))
    raise CAUSES[cause]("why")

lifecycle.answer = answer
gc.disable()
for cause in sys.argv[1:]:
    try:
        asyncio.run(tasks.answer.body(cause, 1))
    except Exception as error:
        kept = error
    print("kept of", cause, type(kept).__name__, kept.__context__, watched[-1]())
"""
TOLD = {
    "Deferred": "_PutBack",
    "Failed": "Failed",
    "KeyError": "Failed",
    "Withdrawn": "Revoked",
    "Elsewhere": "Ignore",
}


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What one process says of them all, one after another: its imports are a second of work."""
    ran = subprocess.run([sys.executable, "-c", SCRIPT, *TOLD], capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()


@pytest.mark.parametrize("raised", TOLD)
def test_what_celery_keeps_of_a_failed_job_does_not_keep_its_prompt(raised: str, said: list[str]) -> None:
    assert f"kept of {raised} {TOLD[raised]} None None" in said
