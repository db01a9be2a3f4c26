"""Which batches the page and `promptmill list` show when a schedule makes many."""

from producers.folding import Fold, fold
from promptmill.states import BatchState
from promptmill.store.batches import Head


def head(name: str, schedule: str | None = None, state: BatchState = BatchState.ENDED) -> Head:
    return Head(name, state, {"schedule": schedule, "due": name} if schedule else {}, done=0, cost_nanos=0)


def test_the_runs_of_a_schedule_that_have_ended_are_one_line_and_push_out_nobody() -> None:
    newest = [
        head("tick-99", "tick", BatchState.ACTIVE),
        *(head(f"tick-{number}", "tick") for number in range(98, 48, -1)),
        head("mine"),
        head("hourly-1", "hourly"),
        head("tick-1", "tick"),
    ]
    assert dict(fold(newest, 4)) == {
        "tick-99": Fold("tick"),
        "tick-98": Fold("tick", more=50),
        "mine": Fold(),
        "hourly-1": Fold("hourly"),
    }


def test_no_more_are_listed_than_asked_for_and_a_tag_of_a_person_makes_no_run() -> None:
    tagged = [Head(name, BatchState.ENDED, {"schedule": "mine"}, 0, 0) for name in "abc"]
    assert list(fold(tagged, 2)) == ["a", "b"]
