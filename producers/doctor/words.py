"""What the doctor found, for people, in the width of a terminal. A command or an address stays whole."""

import textwrap
from collections.abc import Sequence

from producers.doctor.checks import Check, Verdict
from producers.doctor.values import Value
from producers.wrapping import WIDTH

_INDENT = " " * 6


def settings(values: Sequence[Value]) -> str:
    """The effective settings: those that somebody set with where, then the defaults."""
    wide = max(len(each.name) for each in values)
    told = [each for each in values if each.origin != "default"]
    left = [each for each in values if each.origin == "default"]
    lines = [
        _folded(f"{each.name:<{wide}}  {each.value}  from {each.origin}", " " * (wide + 2)) for each in told
    ]
    lines += [_folded(f"{each.name:<{wide}}  {each.value}", " " * (wide + 2)) for each in left]
    head = [f"{'SETTING':<{wide}}  VALUE" + (" FROM; then the defaults" if told else ", all defaults")]
    return "\n".join(head + lines)


def checks(checks: Sequence[Check]) -> str:
    """One line a check, and the advice under what is not well."""
    lines = []
    for check in checks:
        lines.append(_folded(f"{check.verdict.value:<5} {check.name}: {check.found}", _INDENT))
        if check.advice:
            do = "do: " if check.verdict is Verdict.WRONG else ""
            lines.append(_folded(f"{_INDENT}{do}{check.advice}", _INDENT))
    return "\n".join(lines)


def _folded(text: str, indent: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
