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

async def answer(job_id, dispatch):
    prompt = Prompt()
    watched.append(weakref.ref(prompt))
    raise {each.__name__: each for each in (Deferred, Elsewhere, Failed, KeyError, Withdrawn)}[sys.argv[1]]("why")

lifecycle.answer = answer
gc.disable()
try:
    asyncio.run(tasks.answer.body("job", 1))
except Exception as error:
    kept = error
print(type(kept).__name__, kept.__context__, watched[0]())
"""


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("Deferred", "_PutBack"),
        ("Failed", "Failed"),
        ("KeyError", "Failed"),
        ("Withdrawn", "Revoked"),
        ("Elsewhere", "Ignore"),
    ],
)
def test_what_celery_keeps_of_a_failed_job_does_not_keep_its_prompt(raised: str, told: str) -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT, raised], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == f"{told} None None"
