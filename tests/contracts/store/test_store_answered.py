"""What earlier answers teach, read from the rows that are there: on both databases, by short looks into an index."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from promptmill.experience import Experience
from promptmill.store import answered, jobs
from promptmill.store.answered import Kind
from promptmill.usage import Usage

GROUP = "claude-sonnet-5"


@pytest.fixture
def answer(world: Any) -> Callable[..., Any]:
    """`answer(count, output, …)`: a batch of which so many jobs were answered with so many tokens each."""

    def make(
        count: int, output: int, *, usage: Usage | None = None, stop_reason: str = "end_turn", **batch: Any
    ) -> Any:
        made = world.batch(count, **batch)
        for lease in world.running(made, count):
            used = usage or Usage(input_tokens=150, output_tokens=output)
            attempt = world.closed(lease, usage=used, stop_reason=stop_reason)
            with world.database.begin() as conn:
                jobs.complete(conn, [world.completion(lease, attempt=attempt)], world.tick(0.01))
        return world.row(made)

    return make


def known(
    world: Any, *, batch_id: str = "", template: str | None = None, simulated: bool = True
) -> Experience:
    kind = Kind(GROUP, simulated, template)
    with world.database.read() as conn:
        above = answered.experience_above(conn, kind, world.now, but=batch_id)
        return answered.experience_of(conn, batch_id, kind, above, world.now)


def test_without_an_answer_there_is_the_first_guess(world: Any) -> None:
    assert known(world, template="t").output_tokens(None) == 400


def test_a_batch_is_known_by_its_own_answers(world: Any, answer: Any) -> None:
    made = answer(60, 50)
    assert known(world, batch_id=made.id).output.mean == pytest.approx(50, rel=0.1)
    assert known(world, batch_id=made.id).factor.mean == pytest.approx(1.5, rel=0.05)


def test_a_new_batch_of_a_known_template_begins_near_the_truth(world: Any, answer: Any) -> None:
    answer(100, 1_000, template="other")
    answer(60, 50, template="t")
    fresh = world.batch(3, template="t")
    expected = known(world, batch_id=fresh.id, template="t")
    assert expected.output.mean == pytest.approx(50, rel=0.1)
    assert (expected.basis.batch, expected.basis.template) == (0, 60)


def test_an_unknown_template_begins_with_its_model_and_says_so(world: Any, answer: Any) -> None:
    answer(60, 50, template="t")
    expected = known(world, template="never seen")
    assert expected.output.mean < 200
    assert (expected.basis.own, expected.basis.model) == (0, 20)


def test_answers_that_were_cut_off_are_known_as_such(world: Any, answer: Any) -> None:
    answer(40, 50, template="t", stop_reason="max_tokens")
    expected = known(world, template="t")
    assert expected.output_tokens(None) == 400
    assert (expected.basis.template, expected.basis.cut) == (40, 40)


def test_simulated_answers_teach_nothing_about_real_ones(world: Any, answer: Any) -> None:
    answer(60, 50, template="t")
    assert known(world, template="t", simulated=False).output_tokens(None) == 400


def test_failed_tries_teach_nothing(world: Any) -> None:
    made = world.batch(2)
    world.fail(*world.running(made))
    assert known(world, batch_id=made.id).basis.batch == 0


def test_cached_prefixes_are_counted_on_while_they_live(world: Any, answer: Any) -> None:
    cached = Usage(input_tokens=10, cache_read_tokens=90, output_tokens=5)
    made = answer(60, 5, usage=cached, template="t")
    assert known(world, batch_id=made.id, template="t").limited_input_tokens(100) <= 15
    assert known(world, template="t").limited_input_tokens(100) <= 15
    world.tick(400)
    assert known(world, batch_id=made.id, template="t").limited_input_tokens(100) == 100


def test_what_was_expected_of_the_answered_jobs_is_kept_on_the_batch(world: Any, answer: Any) -> None:
    made = world.batch(5)
    world.complete(*world.running(made, 2))
    row = world.row(made)
    assert (row.formula_tokens, row.formula_tokens_answered) == (500, 200)


@pytest.fixture
def race(world: Any) -> Callable[..., Any]:
    """`race(until)`: a hundred calls begun at once whose answers take as long as they are, seen after `until` s."""

    def run(until: float, **batch: Any) -> Any:
        made = world.batch(100, **batch)
        began = world.now
        for output, lease in enumerate(world.running(made, 100), 1):
            if output > until:
                break
            world.now = began + timedelta(seconds=output)
            attempt = world.closed(lease, usage=Usage(input_tokens=100, output_tokens=output))
            with world.database.begin() as conn:
                jobs.complete(conn, [world.completion(lease, attempt=attempt)], world.now)
        world.now = began + timedelta(seconds=until)
        return made

    return run


def test_the_first_answers_of_many_calls_are_the_short_ones_and_do_not_pass_for_all(
    world: Any, race: Any
) -> None:
    race(500, template="t")
    halfway = race(50, template="t")
    assert known(world, batch_id=halfway.id, template="t").output.mean == pytest.approx(50, rel=0.1)


def test_the_last_answers_are_the_long_ones_and_do_not_pass_for_all_either(world: Any, race: Any) -> None:
    made = race(500)
    assert known(world, batch_id=made.id).output.mean == pytest.approx(50, rel=0.1)


def test_where_nothing_else_is_known_the_first_answers_are_better_than_a_guess(world: Any, race: Any) -> None:
    made = race(20)
    assert known(world, batch_id=made.id).output.mean < 100
