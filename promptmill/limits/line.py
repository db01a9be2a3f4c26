"""The line of processes that wait for the same pool.

Within a process calls are served in order; between processes, turn by turn. The first in line is the next
to be granted anything, however large its call is, so small calls of others cannot overtake it for ever.
A process that does not come when it is due has lost its turn.
"""

from promptmill.limits.policy import Pacing
from promptmill.limits.records import PoolRecord

Line = list[tuple[str, float]]


def others_in_line(record: PoolRecord, process: str, now: float, pacing: Pacing) -> tuple[Line, Line]:
    """Those before this process and those behind it; the overdue ones are dropped."""
    present = [turn for turn in record.line if turn[1] + pacing.line_grace >= now]
    names = [name for name, _ in present]
    place = names.index(process) if process in names else len(present)
    return present[:place], present[place + 1 :]


def gap(record: PoolRecord, pacing: Pacing) -> float:
    """Seconds that a process leaves to the others at least, so that all have a turn before their work runs out."""
    return min(pacing.gap, pacing.round / max(1, len(record.line)))


def due_after(ahead: Line, earliest: float, record: PoolRecord, pacing: Pacing) -> float:
    """When a process behind others may hope for its turn, if the next one is possible at `earliest`.

    Turns follow each other as fast as the limits allow calls. The interval that is measured may be longer because
    the turns were: a line that went by it alone would stay as slow as it once was.
    """
    possible = max(
        (cost / rate for cost, rate in zip(record.mean_cost, record.rate, strict=True) if rate > 0),
        default=0.0,
    )
    turn = max(gap(record, pacing), pacing.turn_share * min(record.interval, possible))
    return max(earliest, ahead[0][1]) + len(ahead) * turn
