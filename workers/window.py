"""The window: how many job ids of a model group may be out and not yet begun.

Small enough that pause, cancel and priority act within seconds and Redis stays empty; large enough that
no slot and no limit idles. About two seconds of work at the pace that binds. Pure: figures in, a count out.
"""

from dataclasses import dataclass

HORIZON_S = 2.0
HEADSTART = 1.5
LONGEST_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class GroupLoad:
    """What one model group looks like now.

    Attributes:
        queued: ids that are out and not begun (at the broker, or waiting for a permit).
        running: jobs with a lease.
        starts_per_s: calls begun per second, over the last ten seconds.
        limit_per_s: calls per second that the limits allow; None where no limit is known.
        paused_s: seconds until the group may call again.
    """

    queued: int
    running: int
    starts_per_s: float
    limit_per_s: float | None
    paused_s: float = 0.0


def room_in_window(load: GroupLoad, *, slots: int, contended: bool) -> int:
    """How many more ids of the group may go out.

    Args:
        load: the group's figures.
        slots: calls that all live workers together can hold.
        contended: another group has work too, so this one keeps to half of the slots.
    """
    if load.paused_s > LONGEST_PAUSE_S or slots == 0:
        return 0
    share = max(1, slots // 2) if contended else slots
    idle = max(0, share - load.running)
    # A group that just started has no pace yet: free slots are its measure, the limit its bound.
    pace = max(HEADSTART * load.starts_per_s * HORIZON_S, float(idle))
    if load.limit_per_s is not None:
        # Estimates that are too large make the limit look lower than it is; what began in fact did fit.
        pace = min(pace, max(load.limit_per_s, load.starts_per_s) * HORIZON_S)
    window = min(max(1, round(pace)), 2 * share, idle + share)
    return max(0, window - load.queued)
