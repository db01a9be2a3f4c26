"""Fair queueing: who goes next."""

from collections import Counter
from collections.abc import Iterator
from itertools import count

from promptmill.dimensions import Amounts
from workers.fairness import CLOCK, Candidate, Queue, dominant_cost, pick

LIMITS = Amounts(requests=60, input_tokens=60_000, output_tokens=6_000)
SMALL = Amounts(requests=1, input_tokens=100, output_tokens=10)


def a_queue(batch_id: str, jobs: int, *, weight: float = 1.0, amounts: Amounts = SMALL) -> Queue:
    return Queue(batch_id, weight, [Candidate(f"{batch_id}{number}", amounts) for number in range(jobs)])


def shares(picked: list[str]) -> Counter[str]:
    return Counter(job_id[0] for job_id in picked)


def test_two_equal_batches_take_turns() -> None:
    assert shares(pick([a_queue("a", 50), a_queue("b", 50)], {}, LIMITS, 20).job_ids) == {"a": 10, "b": 10}


def test_a_weight_of_three_gets_three_times_as_much() -> None:
    picked = pick([a_queue("a", 50, weight=3), a_queue("b", 50)], {}, LIMITS, 40)
    assert shares(picked.job_ids) == {"a": 30, "b": 10}


def test_a_newcomer_starts_at_the_present_and_gets_no_credit_for_idling() -> None:
    first = pick([a_queue("a", 100)], {}, LIMITS, 100)
    second = pick([a_queue("a", 100), a_queue("b", 100)], first.times, LIMITS, 20)
    assert shares(second.job_ids)["b"] in range(10, 12)


def test_what_an_idle_batch_missed_is_not_made_up_for() -> None:
    times = {"a": 1000.0, "b": 2.0, CLOCK: 1000.0}
    assert shares(pick([a_queue("a", 50), a_queue("b", 50)], times, LIMITS, 20).job_ids)["b"] <= 11


def test_jobs_of_a_batch_keep_their_order() -> None:
    assert pick([a_queue("a", 5)], {}, LIMITS, 3).job_ids == ["a0", "a1", "a2"]


def test_no_more_than_the_room_goes_out() -> None:
    assert len(pick([a_queue("a", 5), a_queue("b", 5)], {}, LIMITS, 4).job_ids) == 4
    assert pick([a_queue("a", 5)], {}, LIMITS, 0).job_ids == []


def test_a_large_prompt_counts_by_the_limit_it_uses_most() -> None:
    large = Amounts(requests=1, input_tokens=10_000, output_tokens=10)
    picked = pick([a_queue("a", 99, amounts=large), a_queue("b", 99)], {}, LIMITS, 44)
    assert shares(picked.job_ids)["b"] == 40


def test_without_any_limit_every_job_counts_the_same() -> None:
    assert dominant_cost(SMALL, Amounts()) == 1.0


def test_of_each_line_no_more_is_taken_than_goes_out() -> None:
    taken: list[str] = []

    def line(name: str) -> Iterator[Candidate]:
        for number in count():
            taken.append(f"{name}{number}")
            yield Candidate(taken[-1], SMALL)

    picked = pick([Queue("a", 3, line("a")), Queue("b", 1, line("b"))], {}, LIMITS, 40)
    assert taken == picked.job_ids
    assert picked.of_batch == {"a": 30, "b": 10}
