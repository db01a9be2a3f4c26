"""Weighted fair queueing over batches: whose job goes next.

Every batch has a virtual time: the seconds of the busiest limit its jobs have used, divided by its
weight. The batch with the smallest goes next, so a small batch does not wait behind a large one, and
batches that use different limits fill each other's gaps (start-time fair queueing with dominant cost;
limiter.md, section 7). Pure: it picks, the dispatcher acts.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from promptmill.dimensions import DIMENSIONS, Amounts

SECONDS_PER_MINUTE = 60.0
CLOCK = ""
"""The key under which the system's own virtual time is kept beside those of the batches."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pending job that could go next, and what it is expected to use."""

    job_id: str
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class Queue:
    """The next pending jobs of one batch, in order, with the batch's weight; no further are asked for than are chosen."""

    batch_id: str
    weight: float
    candidates: Iterable[Candidate]


@dataclass(frozen=True, slots=True)
class Pick:
    """What goes next, in order, how many of each batch, and the virtual times afterwards."""

    job_ids: list[str]
    times: dict[str, float]
    of_batch: Mapping[str, int]


def pick(queues: Sequence[Queue], times: Mapping[str, float], limits: Amounts, room: int) -> Pick:
    """Choose at most `room` jobs.

    Args:
        queues: the batches with pending jobs.
        times: virtual times so far; a batch without one starts at the system's (no credit for idling).
        limits: the limits per minute that hold; 0 = none in that dimension.
        room: how many ids may go out.
    """
    now = times.get(CLOCK, 0.0)
    heap = [(max(times.get(queue.batch_id, now), now), place) for place, queue in enumerate(queues)]
    heapq.heapify(heap)
    lines = [iter(queue.candidates) for queue in queues]
    chosen: list[str] = []
    of_batch = Counter[str]()
    after = {queue.batch_id: max(times.get(queue.batch_id, now), now) for queue in queues}
    while heap and len(chosen) < room:
        start, place = heapq.heappop(heap)
        queue, candidate = queues[place], next(lines[place], None)
        if candidate is None:
            continue
        chosen.append(candidate.job_id)
        of_batch[queue.batch_id] += 1
        now = max(now, start)
        end = start + dominant_cost(candidate.amounts, limits) / queue.weight
        after[queue.batch_id] = end
        heapq.heappush(heap, (end, place))
    after[CLOCK] = now
    return Pick(chosen, after, of_batch)


def dominant_cost(amounts: Amounts, limits: Amounts) -> float:
    """Seconds of the limit that the job uses most; a job counts as one where no limit is known."""
    shares = [
        amounts[dimension] * SECONDS_PER_MINUTE / limits[dimension]
        for dimension in DIMENSIONS
        if limits[dimension] > 0
    ]
    return max(shares, default=1.0)
