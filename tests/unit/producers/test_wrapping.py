"""What is said on a terminal fits it; a pipe gets it as it is."""

import io

from producers.wrapping import fitted, fitted_to


def test_a_wide_line_is_broken_between_words_under_its_own_indent() -> None:
    said = "4 faults:\n  rows.jsonl, line 3, field promt: there is no such field; did you mean prompt?"

    assert fitted_to(50, said).splitlines() == [
        "4 faults:",
        "  rows.jsonl, line 3, field promt: there is no",
        "    such field; did you mean prompt?",
    ]


def test_a_command_stays_whole_to_be_copied() -> None:
    add = 'promptmill schedule add NAME FILE --cron "0 2 * * *"'

    assert fitted_to(60, f"There is no schedule yet in /tmp/x; make one with: {add}").splitlines() == [
        "There is no schedule yet in /tmp/x; make one with:",
        f"  {add}",
    ]
    assert fitted_to(40, f"Go on with:\n  {add}") == f"Go on with:\n  {add}"


def test_what_is_to_be_exported_stays_whole_too() -> None:
    assert fitted_to(40, "try it with: export A=http://127.0.0.1:8787 B=0 C=0").splitlines() == [
        "try it with:",
        "  export A=http://127.0.0.1:8787 B=0 C=0",
    ]


def test_what_is_no_terminal_gets_the_line_as_it_is() -> None:
    assert fitted("word " * 50, io.StringIO()) == "word " * 50
