"""What a person sees while a large file is submitted."""

from io import StringIO
from typing import TextIO

from producers.admitting import Admitting, Step, admission_view


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_short_submission_shows_nothing() -> None:
    for stream in (StringIO(), Terminal()):
        with admission_view(stream) as progress:
            progress("reading", 10, 10)
            progress("storing", 10, 10)
        assert stream.getvalue() == ""


def test_a_long_one_tells_its_pace_and_what_is_left() -> None:
    said: list[str] = []
    seconds = iter((0.0, 0.0, 4.0, 6.0, 7.0, 17.0))
    view = Admitting(lambda step: said.append(step.line), quiet_s=5, every_s=5, now=lambda: next(seconds))
    view("reading", 40_000, None)
    view("reading", 60_000, None)
    view("storing", 10, 100_000)
    view("storing", 25_000, 100_000)
    assert said == [
        "progress doing=reading rows=60000 rows_per_s=10000",
        "progress doing=storing rows=25000/100000 rows_per_s=2500 eta_s=30",
    ]


def test_on_a_terminal_it_is_words_in_one_line() -> None:
    step = Step("storing", 250_000, 1_000_000, 5.0)
    assert step.words == "storing  250,000 of 1,000,000 rows  50,000 rows/s  15.0 s left"


def test_nothing_of_it_is_left_on_a_terminal() -> None:
    stream: TextIO = Terminal()
    with admission_view(stream) as progress:
        progress._next_at = 0.0  # type: ignore[attr-defined]  # as if a second had passed
        progress("reading", 1_000, None)
    assert "reading" in stream.getvalue()  # type: ignore[attr-defined]
    assert stream.getvalue().endswith("\r\x1b[2K")  # type: ignore[attr-defined]
