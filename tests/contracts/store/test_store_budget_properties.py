"""Whatever begins, ends, dies or comes late: a budget is overshot by no more than the error of the estimates in flight.

Every call has what was set aside for it and what it is billed for in truth, which may be more. Workers die with
calls in flight, late writers return, the budget is changed; the bill is kept beside the database.
"""

from dataclasses import dataclass
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

from promptmill.states import BatchState, PausedBy
from promptmill.store import control, jobs, leases, ledger, terms
from promptmill.store.jobs import Deferral
from promptmill.store.leases import Lease
from promptmill.store.terms import NewTerms

JOBS = 8
NANOS = st.integers(0, 300)
PICK = st.integers(0, 50)


@dataclass
class Call:
    """A call that was made: its lease, what was set aside, what it is billed for, and whether that is written down."""

    lease: Lease
    set_aside: int
    billed: int
    known: bool = False


class Spending(RuleBasedStateMachine):
    """One batch with a budget. No message and no lease is forgotten."""

    world: Any  # set by the test, one for all examples

    @initialize(budget=st.integers(100, 1_000))
    def admit(self, budget: int) -> None:
        self.world.tick(100)
        self.made = self.world.batch(JOBS, budget_nanos=budget)
        self.calls: list[Call] = []

    @rule(set_aside=st.lists(NANOS, min_size=1, max_size=4), billed=st.lists(NANOS, min_size=4, max_size=4))
    def begin(self, set_aside: list[int], billed: list[int]) -> None:
        self.world.alive("worker")
        queued = self.world.dispatch(self.made, len(set_aside))
        was = self.world.row(self.made)
        claims = [
            self.world.claim(each, reserved_nanos=nanos)
            for each, nanos in zip(queued, set_aside, strict=False)
        ]
        with self.world.database.begin() as conn:
            answers = leases.begin(conn, claims, "worker", self.world.now)
        for claim, bill in zip(claims, billed, strict=False):
            answer = answers[claim.job_id]
            if isinstance(answer, Lease):
                self.calls.append(Call(answer, claim.reserved_nanos or 0, bill))
        self.what_fits_begins(was, claims, answers)
        if any(isinstance(each, Lease) for each in answers.values()):
            self.the_bill_holds()

    def what_fits_begins(self, was: Any, claims: list[Any], answers: dict[str, Any]) -> None:
        room = was.budget_nanos - was.cost_nanos - was.reserved_nanos - was.unknown_nanos
        for claim in claims:
            assert isinstance(answers[claim.job_id], Lease) == (claim.reserved_nanos <= room)
            if claim.reserved_nanos <= room:
                room -= claim.reserved_nanos

    def the_bill_holds(self) -> None:
        """From here on nothing is billed that has not begun by now, so what holds now holds until the next begin."""
        row = self.world.row(self.made)
        assert row.cost_nanos + row.reserved_nanos + row.unknown_nanos <= row.budget_nanos
        error = sum(max(0, call.billed - call.set_aside) for call in self.calls if not call.known)
        assert sum(call.billed for call in self.calls) <= row.budget_nanos + error

    @precondition(lambda self: self.calls)
    @rule(pick=PICK)
    def answered(self, pick: int) -> None:
        """In time, or by a late writer whose job is another's by now."""
        call = self.calls[pick % len(self.calls)]
        closed = self.world.closed(call.lease, cost_nanos=call.billed)
        with self.world.database.begin() as conn:
            jobs.complete(conn, [self.world.completion(call.lease, attempt=closed)], self.world.now)
        call.known = call.known or self._has_a_cost(call)

    @precondition(lambda self: self.calls)
    @rule(pick=PICK)
    def cut(self, pick: int) -> None:
        """The reply is lost on the wire: nobody knows what it cost."""
        call = self.calls[pick % len(self.calls)]
        closed = self.world.closed(call.lease, "connection_failed", usage=None, cost_nanos=None)
        back = Deferral(job_id=call.lease.job_id, token=call.lease.token, attempt=closed, not_before=None)
        with self.world.database.begin() as conn:
            jobs.defer(conn, [back], self.world.now)

    @rule()
    def all_workers_die(self) -> None:
        self.world.tick(30)
        self.world.reap()

    @rule(budget=st.integers(50, 2_000))
    def set_budget(self, budget: int) -> None:
        if self.world.row(self.made).state is not BatchState.ENDED:
            with self.world.database.begin() as conn:
                terms.change(conn, self.made.id, NewTerms(budget_nanos=budget), self.world.now)

    @precondition(lambda self: self.world.row(self.made).state is BatchState.PAUSED)
    @rule()
    def resume(self) -> None:
        with self.world.database.begin() as conn:
            control.resume(conn, self.made.id, self.world.now)

    @invariant()
    def sums_hold(self) -> None:
        self.world.assert_adds_up(self.made)
        row = self.world.row(self.made)
        assert row.cost_nanos == sum(call.billed for call in self.calls if call.known)
        assert row.cost_nanos + row.reserved_nanos + row.unknown_nanos == sum(
            call.billed if call.known else call.set_aside for call in self.calls
        )

    @invariant()
    def it_is_paused_only_with_nothing_in_flight(self) -> None:
        row = self.world.row(self.made)
        if row.paused_by is PausedBy.BUDGET:
            assert row.reserved_nanos == 0

    def _has_a_cost(self, call: Call) -> bool:
        """A call whose reply was cut stays of unknown cost: its attempt was closed already."""
        with self.world.database.read() as conn:
            attempts = ledger.attempts_of(conn, job_id=call.lease.job_id)
        return any(each.id == call.lease.attempt_id and each.cost_nanos is not None for each in attempts)


@pytest.fixture(params=["postgres", pytest.param("sqlite", marks=pytest.mark.chaos)])
def database_url(request: pytest.FixtureRequest) -> str:
    """One every day: each step alone is tried on both by the other modules, and states at random on the other."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.mark.timeout(300)
@pytest.mark.parametrize("examples", [30, pytest.param(200, marks=pytest.mark.chaos)])
def test_a_budget_is_overshot_by_no_more_than_the_error_of_the_estimates_in_flight(
    world: Any, examples: int
) -> None:
    machine = type("SpendingInOneDatabase", (Spending,), {"world": world})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
