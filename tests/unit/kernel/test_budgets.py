"""What is left of a budget, and whether one more call may begin."""

import pytest

from promptmill.budgets import Budget, Verdict, dollars, next_call_of


def test_a_call_begins_while_its_expected_cost_fits() -> None:
    budget = Budget(limit=100, cost=50, reserved=20, unknown=10)

    assert budget.room == 20
    assert budget.verdict(20) is Verdict.BEGIN
    assert budget.verdict(21) is Verdict.WAIT


def test_a_call_that_does_not_fit_waits_only_while_others_may_give_something_back() -> None:
    assert Budget(limit=100, cost=90, reserved=5).verdict(20) is Verdict.WAIT
    assert Budget(limit=100, cost=90, unknown=5).verdict(20) is Verdict.EXHAUSTED


def test_a_call_of_unknown_price_never_begins() -> None:
    assert Budget(limit=100).verdict(None) is Verdict.EXHAUSTED
    assert Budget(limit=100, reserved=10).verdict(None) is Verdict.EXHAUSTED


def test_a_budget_that_was_lowered_below_what_is_spent_has_no_room() -> None:
    assert Budget(limit=10, cost=50).room == -40
    assert Budget(limit=10, cost=50).verdict(0) is Verdict.EXHAUSTED


def test_what_is_set_aside_is_gone() -> None:
    assert Budget(limit=100).with_call(60).verdict(50) is Verdict.WAIT


@pytest.mark.parametrize(
    ("budget", "typical", "calls"),
    [
        (Budget(limit=100, cost=40), 10, 6),
        (Budget(limit=100, cost=95, reserved=1), 10, 0),
        (Budget(limit=100, cost=95), 10, 1),
        (Budget(limit=10, cost=95), 10, 1),
        (Budget(limit=100), None, 1),
        (Budget(limit=100, reserved=1), None, 0),
    ],
)
def test_no_more_calls_go_out_than_fit_and_one_finds_out_that_none_does(
    budget: Budget, typical: float | None, calls: int
) -> None:
    assert budget.calls(typical) == calls


def test_why_it_stopped_names_every_part() -> None:
    budget = Budget(limit=5_000_000_000, cost=4_980_000_000, unknown=10_000_000)

    assert budget.why_stopped(12_500_000) == (
        "budget of $5.00: $4.98 spent, $0.01 set aside for calls whose cost nobody can know; "
        "the next call may cost $0.0125"
    )
    assert "price of the next call is unknown" in budget.why_stopped(None)


def test_the_larger_amount_lets_it_go_on() -> None:
    assert Budget(limit=5_000_000_000, cost=4_980_000_000).larger() == "10.00"
    assert Budget(limit=1_000_000_000, cost=50_000_000_000).larger() == "51.00"
    assert Budget(limit=20_000_000, cost=24_690_500).larger() == "0.045"
    assert Budget(limit=2_000_000, cost=1_900_000).larger(next_call=6_100_000) == "0.0081"


def test_the_larger_amount_is_enough_for_the_whole_batch_where_that_is_known() -> None:
    budget = Budget(limit=1_000_000_000, cost=900_000_000, unknown=50_000_000)

    assert budget.larger(next_call=200_000_000, projected=10_900_000_000) == "13.00"
    assert budget.larger(next_call=300_000_000, projected=900_000_000) == "1.30"
    assert budget.larger(projected=900_000_000) == "1.10"


def test_what_the_next_call_may_cost_is_read_from_why_it_stopped() -> None:
    why = Budget(limit=5_000_000_000, cost=4_980_000_000).why_stopped

    assert next_call_of(why(12_500_000)) == 12_500_000
    assert next_call_of(why(3_000_000_000)) == 3_000_000_000
    assert next_call_of(why(None)) == next_call_of(None) == 0


@pytest.mark.parametrize(
    ("nanos", "said"),
    [
        (5_000_000_000, "$5.00"),
        (4_200_000, "$0.0042"),
        (1, "$0.000000001"),
        (0, "$0.00"),
        (-10_000_000, "-$0.01"),
    ],
)
def test_dollars_are_exact_and_short(nanos: int, said: str) -> None:
    assert dollars(nanos) == said
