"""How a job's vehicle ends when it was not answered, so that Flower shows the state the database holds.

They are raised with one line of text after the outcome is committed, and change nothing. A person reads the
line in the monitor, so it names ids and kinds of failure, never a prompt, an answer or a key.
"""


class Deferred(Exception):
    """The job went back to `pending`; Flower shows RETRY. Nothing is sent again by Celery."""


class Failed(Exception):
    """The job has ended without an answer; Flower shows FAILURE."""
