"""The budget of a batch: what is left of it, and whether one more call may begin. Pure.

The one idea: what a call may cost is set aside before it is made and settled after. What nobody can know the cost of
stays set aside, so a budget is overshot by no more than calls in flight cost beyond that. It is not the mean that is
set aside: calls in flight are the long ones, so all of them together cost more than their means.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum

NANOS_PER_DOLLAR = 1_000_000_000
_CENTS_SHOWN = 2
_DIGITS_SUGGESTED = 2
_SPARE = 10
"""One part in so many of what is still to come is added to a suggested amount: the projection may be short."""
_NEXT_CALL = re.compile(r"the next call may cost \$(\d+)\.(\d+)")


class Verdict(StrEnum):
    """What a budget says to one more call."""

    BEGIN = "begin"
    WAIT = "wait"
    EXHAUSTED = "exhausted"


@dataclass(frozen=True, slots=True)
class Budget:
    """A ceiling on cost and what is gone of it, in nano-dollars.

    Attributes:
        limit: the ceiling.
        cost: what is known to have been spent.
        reserved: set aside for calls in flight.
        unknown: set aside for calls that ended, or were lost, without anybody knowing their cost.
    """

    limit: int
    cost: int = 0
    reserved: int = 0
    unknown: int = 0

    @property
    def room(self) -> int:
        """What a call may cost and still begin; below zero where calls cost more than was set aside."""
        return self.limit - self.cost - self.reserved - self.unknown

    def verdict(self, wanted: int | None) -> Verdict:
        """Whether a call may begin that sets so much aside; None, a price nobody knows, never may.

        It waits while other calls hold something that may come back.
        """
        if wanted is None:
            return Verdict.EXHAUSTED
        if wanted <= self.room:
            return Verdict.BEGIN
        return Verdict.WAIT if self.reserved > 0 else Verdict.EXHAUSTED

    def with_call(self, wanted: int) -> "Budget":
        """The budget once so much more is set aside."""
        return replace(self, reserved=self.reserved + wanted)

    def calls(self, typical: float | None) -> int:
        """How many calls of a typical cost may go out; one where nothing is in flight, so that it is told to stop."""
        probe = 0 if self.reserved > 0 else 1
        if typical is None or typical <= 0:
            return probe
        return max(probe, int(self.room / typical))

    @property
    def is_used_up(self) -> bool:
        """Whether nothing is left, whatever comes back of what is in flight."""
        return self.limit <= self.cost + self.unknown

    def why_stopped(self, wanted: int | None) -> str:
        """Why no call begins any more, for people."""
        if wanted is None:
            return f"{self._gone()}; the price of the next call is unknown"
        return f"{self._gone()}; the next call may cost {dollars(wanted)}"

    def why_used_up(self) -> str:
        """The same where no call had to ask."""
        return f"{self._gone()}; nothing is left of it"

    def _gone(self) -> str:
        gone = [f"{dollars(self.cost)} spent"]
        if self.unknown:
            gone.append(f"{dollars(self.unknown)} set aside for calls whose cost nobody can know")
        return f"budget of {dollars(self.limit)}: {', '.join(gone)}"

    def larger(self, *, next_call: int = 0, projected: int | None = None) -> str:
        """An amount that lets it go on, in dollars as it is typed, rounded up.

        Args:
            next_call: nano-dollars that the next call sets aside.
            projected: what the whole batch will have cost, as far as costs are known. It is the measure where it is
                known; else as much again as the limit was.
        """
        gone = self.cost + self.unknown
        if projected is None:
            amount = max(self.limit, gone) + max(self.limit, next_call)
        else:
            to_come = max(0, projected - self.cost)
            amount = gone + to_come + to_come // _SPARE + next_call
        amount = max(amount, self.limit + 1)
        step = 10 ** max(0, len(str(amount)) - _DIGITS_SUGGESTED)
        return dollars(-(-amount // step) * step).removeprefix("$")


def next_call_of(reason: str | None) -> int:
    """What `Budget.why_stopped` said that the next call may cost, in nano-dollars; 0 where it did not say."""
    found = _NEXT_CALL.search(reason or "")
    return int(found[1]) * NANOS_PER_DOLLAR + int(found[2].ljust(9, "0")) if found else 0


def calls_covered(limit: int, cost: int, calls: int) -> int:
    """Of calls that cost so much together, how many a budget pays for."""
    return calls if cost <= limit else calls * limit // cost


def dollars(nanos: int) -> str:
    """Exact, for people: `$5.00`, `$0.0042`."""
    whole, rest = divmod(abs(nanos), NANOS_PER_DOLLAR)
    digits = f"{rest:09d}".rstrip("0").ljust(_CENTS_SHOWN, "0")
    return f"{'-' if nanos < 0 else ''}${whole}.{digits}"
