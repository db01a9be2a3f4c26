"""The table of bars (bench/rehearsal/bars.py), one seed a row, by the product's limiter in virtual time.

`./dev bench limiter_bars` rehearses five seeds at full length, where ratio and utilisation are means. Here one
seed has to do, and the length of the very last answer alone moves a ratio by 5 %: so what is held to the bar
is the makespan up to the last admission, with a mean answer after it.
"""

from dataclasses import replace

import pytest

from bench.rehearsal.bars import BARS, Bar, rehearse
from bench.rehearsal.figures import Outcome

LONG = {"30-R", "30-I", "30-O"}
"""Half an hour of work each, 52,000 calls together; the balanced load of row 30 stands for them."""
DAILY_INSTEAD = {
    "4b-R": ("1", "4b-B"),
    "4b-I": ("2", "4b-B"),
    "4b-O": ("3", "4b-B"),
    "5": ("1", "7"),
    "6b": ("4", "6"),
    "9": ("6", "8"),
    "12": ("6", "11"),
    "16b": ("16", "4b-B"),
    "18": ("4",),  # and the test of a wrong clock below
    "22": ("3", "21"),
    "27b": ("26", "27"),
    "30-B": ("4",),
}
"""A row that joins two conditions is for `./dev chaos`; every day each condition has a row, and these stand for it."""
ROWS = [
    pytest.param(
        bar,
        id=f"{bar.number}: {bar.what}",
        marks=[pytest.mark.chaos] if bar.number in DAILY_INSTEAD else [],
    )
    for bar in BARS
    if bar.number not in LONG
]


def up_to_the_last_admission(outcome: Outcome) -> Outcome:
    return replace(outcome, makespan=outcome.last_start + outcome.latency)


@pytest.mark.parametrize("bar", ROWS)
def test_a_rehearsal_clears_its_bar(bar: Bar) -> None:
    outcome = rehearse(bar.scene(seed=1))
    assert list(bar.misses([up_to_the_last_admission(outcome)])) == []


def test_a_wrong_clock_changes_nothing_at_all() -> None:
    skewed = replace(next(bar for bar in BARS if bar.same_as).scene(seed=2), seconds=200.0)
    assert rehearse(skewed) == rehearse(replace(skewed, skew=0.0))
