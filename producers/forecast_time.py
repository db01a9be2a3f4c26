"""How long a load takes at the limits of several accounts. Pure.

Each account carries what its own tightest limit lets through, and the accounts work side by side: their rates add
up. Limits must never be added first: one account may be short of requests and the other of tokens.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from promptmill.dimensions import DIMENSIONS, Amounts, Dimension
from promptmill.intake.forecast import Load

MINUTE_S = 60.0
UNLIMITED = float("inf")


@dataclass(frozen=True, slots=True)
class Share:
    """What one account carries of a load.

    Attributes:
        rate: how many times the whole load, per minute; infinite where no limit holds.
        account: its name.
        bound_by: the limit that binds; None where none holds.
        limit: that limit, per minute.
    """

    rate: float
    account: str
    bound_by: Dimension | None = None
    limit: float = 0.0


@dataclass(frozen=True, slots=True)
class Binding:
    """The limit that binds.

    Attributes:
        dimension: what it counts.
        limit: per minute; the sum where all accounts are bound alike.
        account: the one that carries most; None where all are bound alike.
        accounts: how many are known to carry something.
    """

    dimension: Dimension
    limit: float
    account: str | None
    accounts: int


@dataclass(frozen=True, slots=True)
class Allowed:
    """What accounts allow a model group, per minute.

    Attributes:
        by_account: the limits of each; None where there is none. A dimension that nobody knows yet is missing.
    """

    by_account: Mapping[str, Mapping[Dimension, float | None]]

    @property
    def accounts(self) -> int:
        """How many there are."""
        return len(self.by_account)

    @property
    def limits(self) -> dict[Dimension, float | None]:
        """What all accounts that are known allow together; None where one has no limit. To show, not to reckon with."""
        found: dict[Dimension, float | None] = {}
        for dimension in DIMENSIONS:
            known = [each[dimension] for each in self.by_account.values() if dimension in each]
            if known:
                found[dimension] = None if None in known else sum(each for each in known if each)
        return found

    @property
    def unknown(self) -> tuple[Dimension, ...]:
        """The dimensions whose limit some account will be told by its first reply."""
        return tuple(
            dimension
            for dimension in DIMENSIONS
            if any(dimension not in each for each in self.by_account.values())
        )

    @property
    def learning(self) -> int:
        """How many accounts have an unknown limit."""
        return sum(len(each) < len(DIMENSIONS) for each in self.by_account.values())

    @property
    def unlimited(self) -> bool:
        """Whether some account has no limit at all, whatever the others have."""
        return any(share.bound_by is None for share in self._known)

    @property
    def may_be_slower(self) -> bool:
        """Whether an account that is counted on may have a tighter limit than those that are known."""
        if self.unlimited:
            return False
        counted = [share.account for share in self._known] or list(self.by_account)
        return any(len(self.by_account[each]) < len(DIMENSIONS) for each in counted)

    @property
    def may_be_faster(self) -> bool:
        """Whether an account will carry something of which nobody knows yet how much."""
        return 0 < len(self._known) < self.accounts

    @property
    def _known(self) -> list[Share]:
        return list(self.shares(Amounts(1, 1, 1)))  # whose rate is known does not depend on the load

    def shares(self, amounts: Amounts) -> Iterator[Share]:
        """What each account carries, without those of which it is unknown."""
        for account, limits in self.by_account.items():
            rates = [
                (limit / amounts[each] if amounts[each] else UNLIMITED, each, limit)
                for each, limit in limits.items()
                if limit
            ]
            if rates:
                rate, dimension, limit = min(rates)
                yield Share(rate, account, dimension, limit)
            elif len(limits) == len(DIMENSIONS):
                yield Share(UNLIMITED, account)

    def seconds(self, amounts: Amounts) -> float | None:
        """How long so much takes; None where nobody knows, or no limit holds."""
        shares = list(self.shares(amounts))
        return None if self.unlimited or not shares else MINUTE_S / sum(each.rate for each in shares)

    def binding(self, amounts: Amounts) -> Binding | None:
        """The limit that binds; None as for `seconds`."""
        shares = [(each, each.bound_by) for each in self.shares(amounts)]
        bounds = {dimension for _, dimension in shares}
        most, dimension = max(shares, key=lambda share: share[0].rate, default=(None, None))
        if most is None or dimension is None or None in bounds:
            return None
        if len(bounds) == 1:
            return Binding(dimension, sum(each.limit for each, _ in shares), None, len(shares))
        return Binding(dimension, most.limit, most.account, len(shares))


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds at the limits in force, and the model group and limit that bind."""

    low: float
    expected: float
    high: float
    group: str
    binding: Binding

    @property
    def bound_by(self) -> Dimension:
        """What the limit counts."""
        return self.binding.dimension


def duration_of(allowed: Allowed, load: Load, group: str) -> Duration | None:
    """How long the load of a model group takes; None where nobody knows, or no limit holds."""
    binding, expected = allowed.binding(load.expected), allowed.seconds(load.expected)
    low, high = allowed.seconds(load.low), allowed.seconds(load.high)
    if binding is None or expected is None or low is None or high is None:
        return None
    return Duration(low, expected, high, group, binding)
