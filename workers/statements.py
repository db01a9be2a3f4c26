"""What the writer runs for each kind of write: the store's grouped functions, results in order of the values."""

from collections.abc import Mapping, Sequence

from promptmill.clock import Clock
from promptmill.states import JobState
from promptmill.store import Connection, jobs, leases
from promptmill.store.jobs import Completion, Deferral, Failure, LoadedJob
from promptmill.store.leases import Claim, Lease, NoRoom
from promptmill.store.unreadable import UnreadableJob, unreadable
from workers.writer import Statement, Write


def store_statements(worker_id: str, clock: Clock) -> Mapping[Write, Statement]:
    """The kinds of write of a worker process."""

    def load(connection: Connection, ids: Sequence[str]) -> list[LoadedJob | UnreadableJob | None]:
        found = jobs.load(connection, ids)
        left_out = [job_id for job_id in ids if job_id not in found]
        others = unreadable(connection, left_out) if left_out else {}
        return [found.get(job_id) or others.get(job_id) for job_id in ids]

    def look(connection: Connection, places: Sequence[tuple[str, int]]) -> list[bool]:
        queued = jobs.queued_under(connection, places)
        return [place in queued for place in places]

    def begin(connection: Connection, claims: Sequence[Claim]) -> list[Lease | NoRoom | None]:
        granted = leases.begin(connection, claims, worker_id, clock.now())
        return [_granted_to(claim, granted.get(claim.job_id)) for claim in claims]

    def complete(connection: Connection, values: Sequence[Completion]) -> list[bool]:
        accepted = jobs.complete(connection, values, clock.now())
        # A commit is repeated when its answer was lost: then what it stored is there already.
        others = [(each.job_id, each.attempt.attempt_id) for each in values if each.job_id not in accepted]
        kept = jobs.replied_by(connection, others) if others else set()
        return [value.job_id in accepted or value.attempt.attempt_id in kept for value in values]

    def defer(connection: Connection, values: Sequence[Deferral]) -> list[JobState | None]:
        became = jobs.defer(connection, values, clock.now())
        return [became.get(value.job_id) for value in values]

    def fail(connection: Connection, values: Sequence[Failure]) -> list[JobState | None]:
        became = jobs.fail(connection, values, clock.now())
        return [became.get(value.job_id) for value in values]

    return {
        Write.LOAD: load,
        Write.LOOK: look,
        Write.BEGIN: begin,
        Write.COMPLETE: complete,
        Write.DEFER: defer,
        Write.FAIL: fail,
    }


def lock_jobs(connection: Connection, values: Sequence[object]) -> None:
    """Take the locks of one commit at once, so that two workers never wait for each other in a ring."""
    changed = {v.job_id for v in values if isinstance(v, Claim | Completion | Deferral | Failure)}
    if changed:
        jobs.lock_batches_of(connection, changed)


def size_of(value: object) -> int:
    """Characters of the answer in a write: what a commit takes, while it is written, is about twice that."""
    answer = value.kept if isinstance(value, Deferral) else value
    if not isinstance(answer, Completion):
        return 0
    others = (block for block in answer.message.get("content") or () if block.get("type") != "text")
    return len(answer.text) + sum(map(_characters, others))


def _characters(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list) else 0


def _granted_to(claim: Claim, answer: Lease | NoRoom | None) -> Lease | NoRoom | None:
    """The answer, unless it is that of another claim for the same job in the same group."""
    return answer if answer is not None and answer.attempt_id == claim.attempt_id else None
