"""What a check says: one thing that was tried, how it went, and what to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check went."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried; `advice` says what to do unless all is well."""

    name: str
    verdict: Verdict
    found: str
    advice: str | None = None


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, Verdict.OK, found)


def note(name: str, found: str, advice: str | None = None) -> Check:
    """It works, and somebody may want it otherwise."""
    return Check(name, Verdict.NOTE, found, advice)


def wrong(name: str, found: str, advice: str) -> Check:
    """It does not work, or will not."""
    return Check(name, Verdict.WRONG, found, advice)


def healthy(checks: Sequence[Check]) -> bool:
    """Whether nothing is wrong."""
    return all(check.verdict is not Verdict.WRONG for check in checks)
