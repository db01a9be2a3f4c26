"""Whatever happens in whatever order, states change only as the table says and the sums hold.

Several workers with duplicate, late and forgotten callers act on one batch; after every step each job has made
at most one allowed change, what has ended stays as it ended, and every counter is recounted.
"""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from producers.terms import RETRIABLE
from promptmill.errors import InvalidTransition
from promptmill.states import BATCH_CHANGES, JOB_CHANGES, BatchState, JobState
from promptmill.store import control, jobs, retrying
from promptmill.store.tables import job

JOBS = 6
WORKERS = ("one", "two")


PICKS = st.lists(st.integers(0, 50), min_size=1, max_size=3)


class Life(RuleBasedStateMachine):
    """One batch of a few jobs. No message and no lease is ever forgotten, so any of them may come back late."""

    world: Any  # set by the test, one for all examples

    @initialize(sealed=st.sampled_from([True, True, True, False]))
    def admit(self, sealed: bool) -> None:
        admit = self.world.batch if sealed else self.world.admitting
        began = self.world.tick(100)  # long enough for the workers of the example before to be dead
        self.made = admit(JOBS, deadline=began + timedelta(seconds=200))
        self.messages: list[Any] = []
        self.leases: list[Any] = []
        self.before = self._states()
        self.batch_before = self.world.row(self.made)

    @rule(number=st.integers(1, 3))
    def dispatch(self, number: int) -> None:
        self.messages += self.world.dispatch(self.made, number)

    @rule(number=st.integers(1, JOBS), worker=st.sampled_from(WORKERS))
    def start(self, number: int, worker: str) -> None:
        self.dispatch(number)
        self.jobs_change_as_the_table_says()
        self._begin(self.messages[-number:], worker)

    @precondition(lambda self: self.messages)
    @rule(picks=PICKS, worker=st.sampled_from(WORKERS))
    def deliver_again(self, picks: list[int], worker: str) -> None:
        self._begin(_picked(self.messages, picks), worker)

    @precondition(lambda self: self.messages)
    @rule(picks=PICKS)
    def call_back(self, picks: list[int]) -> None:
        some = _picked(self.messages, picks)
        with self.world.database.begin() as conn:
            jobs.unqueue(conn, [(each.job_id, each.dispatch) for each in some], self.world.now)

    @precondition(lambda self: self.leases)
    @rule(picks=PICKS)
    def complete(self, picks: list[int]) -> None:
        some = _picked(self.leases, picks)
        assert self.world.complete(*some) <= {lease.job_id for lease in some}

    @precondition(lambda self: self.leases)
    @rule(picks=PICKS)
    def fail(self, picks: list[int]) -> None:
        self.world.fail(*_picked(self.leases, picks))

    @precondition(lambda self: self.leases)
    @rule(picks=PICKS, after=st.sampled_from([0, 30]))
    def defer(self, picks: list[int], after: float) -> None:
        self.world.defer(*_picked(self.leases, picks), after=after)

    @rule(seconds=st.sampled_from([1, 5, 20]), awake=st.sampled_from([*WORKERS, None]))
    def time_passes(self, seconds: float, awake: str | None) -> None:
        self.world.tick(seconds)
        if awake:
            self.world.alive(awake)
        self.world.reap()

    @rule(number=st.integers(1, JOBS), worker=st.sampled_from(WORKERS))
    def take_over(self, number: int, worker: str) -> None:
        """Everybody dies and another begins what they held: what they still say comes too late."""
        self.world.tick(11)
        self.world.reap()
        self.jobs_change_as_the_table_says()
        self.start(number, worker)

    @rule()
    def deadline(self) -> None:
        with self.world.database.begin() as conn:
            while jobs.expire_overdue(conn, self.world.now):
                pass

    @rule(act=st.sampled_from(["pause", "resume", "resume", "resume", "seal", "cancel"]))
    def control(self, act: str) -> None:
        reason = ["lunch"] if act == "pause" else []
        with self.world.database.begin() as conn:
            try:
                getattr(control, act)(conn, self.made.id, *reason, self.world.now)
            except InvalidTransition:
                assert act != "cancel" or self.world.row(self.made).state is not BatchState.ADMITTING

    @rule(states=st.sets(st.sampled_from(sorted(RETRIABLE)), min_size=1))
    def retry(self, states: set[JobState]) -> None:
        with self.world.database.begin() as conn:
            page = retrying.page_to_retry(conn, self.made.id, states)
        if page is None:
            return
        with self.world.database.begin() as conn:
            try:
                taken_up = retrying.retry(conn, self.made.id, page.ids, states, self.world.now)
            except InvalidTransition:
                return
        assert taken_up == len(page.ids) > 0
        assert {self._states()[each] for each in page.ids} == {JobState.PENDING}
        # This one change of what has ended is a person's; from here on the table holds again.
        self.before |= dict.fromkeys(page.ids, JobState.PENDING)
        self.batch_before = self.world.row(self.made)

    @invariant()
    def sums_hold(self) -> None:
        self.world.assert_adds_up(self.made)

    @invariant()
    def jobs_change_as_the_table_says(self) -> None:
        after = self._states()
        for job_id, state in after.items():
            was = self.before[job_id]
            assert state is was or (
                state in JOB_CHANGES[was] and (not was.is_terminal or state is JobState.SUCCEEDED)
            )
        self.before = after

    @invariant()
    def the_batch_changes_as_the_table_says(self) -> None:
        after = self.world.row(self.made)
        was = self.batch_before
        # Sealing or canceling with nothing left to do passes through two changes in one step.
        reachable = BATCH_CHANGES[was.state] | {
            each for s in BATCH_CHANGES[was.state] for each in BATCH_CHANGES[s]
        }
        assert after.state is was.state or after.state in reachable
        if was.ended_at is not None:
            assert (after.ended_at, after.state) == (was.ended_at, was.state)
        self.batch_before = after

    def _begin(self, messages: list[Any], worker: str) -> None:
        self.world.alive(worker)
        self.leases += {lease.job_id: lease for lease in self.world.begin(messages, worker)}.values()

    def _states(self) -> dict[str, JobState]:
        with self.world.database.read() as conn:
            rows = conn.execute(select(job.c.id, job.c.state).where(job.c.batch_id == self.made.id))
            return {row.id: JobState(row.state) for row in rows}


def _picked(some: list[Any], picks: list[int]) -> list[Any]:
    return [some[pick % len(some)] for pick in picks]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.chaos)])
def database_url(request: pytest.FixtureRequest) -> str:
    """One every day: each step alone is tried on both by the other modules, and budgets at random on the other."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.mark.timeout(300)
@pytest.mark.parametrize("examples", [30, pytest.param(200, marks=pytest.mark.chaos)])
def test_states_and_sums_hold_under_any_interleaving(world: Any, examples: int) -> None:
    machine = type("LifeInOneDatabase", (Life,), {"world": world})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
