"""What follows when the process that works on a job is lost again and again."""

import random

from promptmill.retries import GiveUp, Retry, after_loss


def _rest(losses: int, seed: int) -> float:
    decision = after_loss(losses, max_losses=5, rng=random.Random(seed))
    assert isinstance(decision, Retry)
    return decision.after


def test_the_first_loss_costs_no_time() -> None:
    assert _rest(1, seed=0) == 0


def test_further_losses_rest_for_a_random_time_that_doubles() -> None:
    longest = {losses: max(_rest(losses, seed) for seed in range(300)) for losses in (2, 3, 4)}
    assert 25 < longest[2] <= 30
    assert 55 < longest[3] <= 60
    assert 110 < longest[4] <= 120


def test_the_fifth_ends_the_job() -> None:
    assert isinstance(after_loss(5, max_losses=5, rng=random.Random(0)), GiveUp)
    assert isinstance(after_loss(1, max_losses=1, rng=random.Random(0)), GiveUp)
