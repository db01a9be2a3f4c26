"""How figures are said to people, the same everywhere."""

from promptmill.budgets import Budget, dollars
from promptmill.pricing import usd
from promptmill.store.batches import BatchRow

_MINUTE_S = 60
_HOUR_S = 3600


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    if seconds < _HOUR_S:
        return f"{int(seconds // _MINUTE_S)} min {int(seconds % _MINUTE_S):02d} s"
    return f"{int(seconds // _HOUR_S)} h {int(seconds % _HOUR_S // _MINUTE_S):02d} min"


def money(batch: BatchRow) -> str:
    """What a batch has cost, exact; says so where the cost of some attempts is not known."""
    cost = f"${usd(batch.cost_nanos)}"
    if batch.unpriced_attempts:
        return f"{cost} and {several(batch.unpriced_attempts, 'attempt')} of unknown cost"
    return cost


def budget(batch: BatchRow) -> str | None:
    """A batch's budget, and what of it is gone; None where it has none."""
    if batch.budget_nanos is None:
        return None
    left = Budget(batch.budget_nanos, batch.cost_nanos, batch.reserved_nanos, batch.unknown_nanos)
    gone = [f"{dollars(left.cost)} spent"]
    if left.reserved:
        gone.append(f"{dollars(left.reserved)} set aside for calls in flight")
    if left.unknown:
        gone.append(f"{dollars(left.unknown)} for calls of unknown cost")
    said = f"{dollars(left.room)} left" if left.room >= 0 else f"{dollars(-left.room)} over"
    return f"{dollars(left.limit)}: {', '.join(gone)}, {said}"


def resting(found: tuple[int, float]) -> str:
    """Jobs that rest, and when the first of them goes on."""
    jobs, seconds = found
    return f"{several(jobs, 'job')} after failures, the next goes on in {duration(seconds)}"


def several(count: int, one: str, many: str | None = None) -> str:
    """`1 answer`, `2 answers`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
