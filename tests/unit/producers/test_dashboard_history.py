"""The small lines over time: what was compared, and what is not taken for a pace."""

from producers.dashboard.history import EVERY_S, KEPT, History
from tests.unit.producers.rows import batch_row

DOLLAR = 1_000_000_000


def test_two_looks_make_a_pace_and_what_it_costs() -> None:
    history = History()
    history.note([batch_row(succeeded=10, cost_nanos=DOLLAR)], at=1000.0)
    history.note([batch_row(succeeded=30, cost_nanos=2 * DOLLAR)], at=1010.0)

    assert history.document() == {
        "every_s": EVERY_S,
        "at": [1010.0],
        "answers_per_s": [2.0],
        "usd_per_h": [360.0],
    }


def test_a_look_too_soon_makes_no_sample() -> None:
    history = History()
    history.note([batch_row()], at=1000.0)

    assert not history.note([batch_row(succeeded=5)], at=1001.0)
    assert history.note([batch_row(succeeded=10)], at=1005.0)
    assert [each.answers_per_s for each in history.samples] == [2.0]


def test_a_batch_that_comes_or_goes_is_no_step() -> None:
    history = History()
    history.note([batch_row(succeeded=5)], at=0.0)
    history.note([batch_row(succeeded=5), batch_row(id="batch_2", succeeded=1_000)], at=5.0)
    history.note([batch_row(id="batch_2", succeeded=1_000)], at=10.0)

    assert [each.answers_per_s for each in history.samples] == [0.0, 0.0]


def test_what_a_retry_takes_back_is_no_negative_pace() -> None:
    history = History()
    history.note([batch_row(errored=50)], at=0.0)
    history.note([batch_row(errored=0)], at=5.0)

    assert history.samples[0].answers_per_s == 0.0


def test_a_clock_that_is_set_back_loses_one_sample_and_goes_on() -> None:
    history = History()
    for at in (1000.0, 1005.0, 500.0, 505.0):
        history.note([batch_row()], at=at)

    assert [each.at for each in history.samples] == [1005.0, 505.0]


def test_a_quarter_of_an_hour_is_kept() -> None:
    history = History()
    for step in range(2 * KEPT):
        history.note([batch_row()], at=step * EVERY_S)

    assert len(history.samples) == KEPT
