"""What a person sees while a large file is submitted."""

from io import StringIO
from typing import TextIO

import pytest

from producers.admitting import Admitting, Step, admission_view
from producers.progress import view_for_terminal


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_short_submission_shows_nothing() -> None:
    for stream in (StringIO(), Terminal()):
        with admission_view(stream) as progress:
            progress("reading", 10, 10)
            progress("storing", 10, 10)
        assert stream.getvalue() == ""


def viewed(*seconds: float) -> tuple[Admitting, list[str]]:
    """A view that is made and then called at these seconds."""
    said: list[str] = []
    at = iter((0.0, *seconds))
    return Admitting(lambda step: said.append(step.line), quiet_s=5, every_s=5, now=lambda: next(at)), said


def test_a_long_one_tells_its_pace_and_what_is_left() -> None:
    view, said = viewed(4.0, 6.0, 7.0, 17.0)
    view("reading", 40_000, None)
    view("reading", 60_000, None)
    view("storing", 200, 100_000)
    view("storing", 25_200, 100_000)
    assert said == [
        "progress doing=reading rows=60000 rows_per_s=10000",
        "progress doing=storing rows=25200/100000 rows_per_s=2500 eta_s=30",
    ]


def test_there_is_no_pace_before_a_second_has_passed() -> None:
    view, said = viewed(4.0, 6.0, 11.5)
    view("reading", 40_000, 40_000)
    view("storing", 200, 40_000)
    view("storing", 11_200, 40_000)
    assert said == [
        "progress doing=storing rows=200/40000",
        "progress doing=storing rows=11200/40000 rows_per_s=2000 eta_s=14",
    ]


def test_what_was_stored_before_is_not_in_the_pace() -> None:
    view, said = viewed(1.0, 1.1, 3.0, 13.0)
    view("reading", 100_000, 100_000)
    view("resuming", 200, 100_000)
    view("storing", 70_000, 100_000)
    view("storing", 80_000, 100_000)
    assert said == ["progress doing=storing rows=80000/100000 rows_per_s=1000 eta_s=20"]


def test_on_a_terminal_it_is_words_in_one_line() -> None:
    step = Step("storing", 250_000, 1_000_000, 50_000.0)
    assert step.words == "storing  250,000 of 1,000,000 rows  50,000 rows/s  15.0 s left"
    assert Step("reading", 1_000, None, None).words == "reading  1,000 rows"


@pytest.mark.parametrize("kind", [StringIO, Terminal])
def test_a_stream_that_is_closed_stops_nothing(kind: type[StringIO]) -> None:
    stream = kind()
    with admission_view(stream) as progress:
        stream.close()
        progress._next_at = 0.0  # type: ignore[attr-defined]  # as if a second had passed
        progress("reading", 1_000, None)
    with admission_view(stream), view_for_terminal(stream) as view:
        view.say("nobody hears it")


def test_nothing_of_it_is_left_on_a_terminal() -> None:
    stream: TextIO = Terminal()
    with admission_view(stream) as progress:
        progress._next_at = 0.0  # type: ignore[attr-defined]  # as if a second had passed
        progress("reading", 1_000, None)
    assert "reading" in stream.getvalue()  # type: ignore[attr-defined]
    assert stream.getvalue().endswith("\r\x1b[2K")  # type: ignore[attr-defined]
