"""How long a submission takes at the limits of several accounts, and how `estimate` says it."""

from collections.abc import Mapping

import pytest

from producers.forecast import Outlook
from producers.forecast_shown import outlook_document, outlook_lines
from producers.forecast_time import Allowed
from promptmill.dimensions import Amounts, Dimension
from promptmill.experience import Basis
from promptmill.intake.forecast import Expected, Forecast, Load
from promptmill.intake.survey import Survey

GROUP = "claude-haiku-5-5"
LOAD = Amounts(1_000, 1_000_000, 400_000)
WIDTH = 80
REQUESTS, INPUT, OUTPUT = Dimension


def limits(rpm: float | None, itpm: float | None, otpm: float | None) -> dict[Dimension, float | None]:
    return {REQUESTS: rpm, INPUT: itpm, OUTPUT: otpm}


def look(
    accounts: Mapping[str, Mapping[Dimension, float | None]],
    *,
    high: Amounts = LOAD,
    limiter: bool = True,
    others: Mapping[str, Allowed] | None = None,
) -> Outlook:
    allowed = {GROUP: Allowed(accounts), **(others or {})}
    loads = {group: Load(LOAD, LOAD, high, Basis()) for group in allowed}
    expected = Expected(1_000_000, 400_000, 5_000_000_000)
    found = Survey(
        name="rows",
        content_hash="",
        shared={},
        template=None,
        forecast=Forecast(1_000, expected, expected, expected, loads, 0),
        models={GROUP: 1_000},
    )
    return Outlook(found, simulated=False, allowed=allowed, notices=(), limiter=limiter)


def text(outlook: Outlook) -> str:
    return "\n".join(outlook_lines(outlook))


def seconds(outlook: Outlook) -> float:
    took = outlook.duration
    assert took is not None
    return took.expected


def test_each_account_carries_what_its_own_tightest_limit_lets_through() -> None:
    few_requests, few_tokens = limits(10, 10_000_000, 10_000_000), limits(10_000, 10_000, 10_000_000)

    both = look({"a": few_requests, "b": few_tokens})

    assert seconds(both) == pytest.approx(60 * 1 / (10 / 1_000 + 10_000 / 1_000_000))


def test_equal_accounts_are_as_many_times_faster() -> None:
    one = limits(50, 30_000, 8_000)

    assert seconds(look({"a": one, "b": one, "c": one})) == pytest.approx(seconds(look({"a": one})) / 3)


def test_the_limit_named_is_that_of_the_account_that_carries_most() -> None:
    both = look({"small": limits(1, None, None), "big": limits(None, None, 80_000)})

    assert both.duration is not None
    assert both.duration.bound_by is OUTPUT
    assert "bound by  output tokens: 80,000 a minute of account big, which carries most" in text(both)


def test_accounts_bound_alike_are_added_up_in_words_too() -> None:
    assert "bound by  output tokens: 24,000 a minute of 2 accounts" in text(
        look({"a": limits(50, None, 8_000), "b": limits(500, None, 16_000)})
    )


def test_an_account_without_limits_carries_everything() -> None:
    outlook = look({"a": limits(10, 10, 10), "b": limits(None, None, None), "c": {REQUESTS: 50}, "d": {}})

    assert outlook.duration is None
    assert "no limit holds" in text(outlook)


def test_an_account_that_nobody_knows_adds_nothing_so_it_takes_at_most_so_long() -> None:
    outlook = look({"a": limits(None, None, 8_000), "b": {}})

    assert seconds(outlook) == 3_000
    assert "time      at most 50 min 00 s\n" in text(outlook)
    assert "bound by  output tokens: 8,000 a minute\n" in text(outlook)
    assert "(1 of 2 accounts)" in " ".join(text(outlook).split())


def test_a_limit_that_nobody_knows_may_be_tighter_so_it_takes_at_least_so_long() -> None:
    lines = outlook_lines(look({"a": {REQUESTS: 50, OUTPUT: 8_000}}))

    assert lines[4:7] == [
        "time      at least 50 min 00 s",
        "bound by  output tokens: 8,000 a minute",
        "unknown   the limit on input tokens, until the first reply",
    ]


def test_a_model_group_that_nobody_knows_may_take_longer() -> None:
    outlook = look({"a": limits(50, 30_000, 8_000)}, others={"claude-opus-5": Allowed({"a": {}})})

    said = " ".join(text(outlook).split())
    assert "time at least 50 min 00 s" in said
    assert "of claude-opus-5, until" in said


def test_a_range_is_said_where_there_is_one() -> None:
    known = limits(50, 3_000_000, 8_000)

    assert "(50 min 00 s to 1 h 40 min)" in text(look({"a": known}, high=Amounts(1_000, 1_000_000, 800_000)))
    assert "(" not in text(look({"a": known}))


def test_no_line_is_wider_than_a_terminal() -> None:
    narrow = {f"account-with-a-long-name-{n}": {OUTPUT: 8_000.0 * n} for n in range(1, 4)}
    odd = {"another-account-with-quite-a-long-name-indeed": limits(1_000, 1, None)}

    for outlook in (look({**narrow, **odd}), look({"a": {}}, limiter=False)):
        assert max(map(len, outlook_lines(outlook))) <= WIDTH


def test_without_a_limiter_it_says_what_to_set() -> None:
    outlook = look({"a": {}}, limiter=False)

    said = " ".join(text(outlook).split())
    assert "unknown: no limiter runs here and no limit is set; set PROMPTMILL_RPM, PROMPTMILL_ITPM" in said
    assert "until the first reply" in text(look({"a": {}}))


def test_the_document_says_what_accounts_allow_together_and_what_some_do_not_know() -> None:
    [shown] = outlook_document(look({"a": {REQUESTS: 50, OUTPUT: 8_000}, "b": limits(50, None, 1_000)}))[
        "limits"
    ]

    assert shown == {
        "model_group": GROUP,
        "accounts": 2,
        "requests": 100,
        "input_tokens": None,
        "output_tokens": 9_000,
        "unknown": ["input_tokens"],
    }
