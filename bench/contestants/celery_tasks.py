"""The Celery program that many write first: the prompt in the message, the SDK in the task, no result kept.

Stock settings but `task_ignore_result`, which spares it the storing of answers that Promptmill does.
"""

import os
from functools import cache
from typing import Any

from anthropic import Anthropic
from celery import Celery

app = Celery("plain", broker=os.environ["BENCH_BROKER"])
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)


@cache
def client() -> Anthropic:
    """One per process: made at the first call, so after the fork."""
    return Anthropic(api_key="sk-simulated", base_url=os.environ["BENCH_URL"])


@app.task(name="ask")
def ask(body: dict[str, Any]) -> None:
    """One call."""
    client().messages.create(**body)
