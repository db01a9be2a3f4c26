"""From a job to the Prompt that is sent. History, recalled notes and redaction will stand here."""

from promptmill.prompts import Prompt
from promptmill.retries import ceiling
from promptmill.store.jobs import LoadedJob


def compose(job: LoadedJob) -> Prompt:
    """The Prompt of a job, as it goes to Claude; with more room where its answers were cut off before."""
    max_tokens = ceiling(job.prompt.max_tokens, job.options, job.failures)
    if max_tokens == job.prompt.max_tokens:
        return job.prompt
    return Prompt({**job.prompt.body, "max_tokens": max_tokens})
