"""From a job to the Prompt that is sent. History, recalled notes and redaction will stand here."""

from promptmill.prompts import Prompt
from promptmill.store.jobs import LoadedJob


def compose(job: LoadedJob) -> Prompt:
    """The Prompt of a job, as it goes to Claude."""
    return job.prompt
