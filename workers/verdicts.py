"""How a job's vehicle ends, so that Flower shows the state the database holds.

They are raised with one line of text after the outcome is committed, and change nothing. A person reads the
line in the monitor, so it names ids and kinds of failure, never a prompt, an answer or a key.
"""

from promptmill.states import JobState


class Verdict(Exception):
    """How a job stands when its task ends.

    Attributes:
        is_ours: whether this very call wrote it into the database. Else it was another's, and is told there.
    """

    def __init__(self, why: str, *, is_ours: bool = False) -> None:
        super().__init__(why)
        self.is_ours = is_ours


class Deferred(Verdict):
    """The job went back to `pending`; Flower shows RETRY. Nothing is sent again by Celery."""


class Failed(Verdict):
    """The job has ended without an answer; Flower shows FAILURE."""


class Withdrawn(Verdict):
    """The job was canceled, or its deadline has passed; Flower shows REVOKED."""


class Answered(Verdict):
    """The job has its answer, though not by this call; Flower shows SUCCESS."""


class Elsewhere(Verdict):
    """Another message or process has the job by now, and will say how it ends; Flower is told nothing."""


_OF: dict[JobState, type[Verdict]] = {
    JobState.PENDING: Deferred,
    JobState.QUEUED: Elsewhere,
    JobState.RUNNING: Elsewhere,
    JobState.SUBMITTED: Elsewhere,
    JobState.SUCCEEDED: Answered,
    JobState.ERRORED: Failed,
    JobState.CANCELED: Withdrawn,
    JobState.EXPIRED: Withdrawn,
}


def verdict_on(state: JobState, why: str, *, is_ours: bool = False) -> Verdict:
    """What to raise where a job is in that state as its task ends."""
    return _OF[state](str(state) if _OF[state] is Withdrawn else why, is_ours=is_ours)
