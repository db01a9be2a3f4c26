"""How a job's vehicle ends when it was not answered, so that Flower shows the state the database holds.

They are raised after the outcome is committed, and change nothing: the text is what a person reads in the
monitor, so it names ids and kinds of failure, never a prompt, an answer or a key.
"""


class Deferred(Exception):
    """The job went back to `pending`; Flower shows RETRY. Nothing is sent again by Celery.

    Args:
        why: one line for the monitor.
        after: seconds until the dispatcher may send it again; None when that is not known.
    """

    def __init__(self, why: str, *, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class Failed(Exception):
    """The job has ended without an answer; Flower shows FAILURE. `why` is one line for the monitor."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
