"""Which fault, if any, meets a request. Decided here as a value; acted on where the request is answered.

The one idea: chance is a hash of (seed, fault, prompt, how often this prompt has come), so the same seed and the
same requests give the same faults, however they are interleaved.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase

from promptmill.simulator.scenario import AT_THE_DOOR, STREAMED_ONLY, Fault

_TWO_TO_64 = 2**64
_NANOS_PER_DOLLAR = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a fault may look at in a request.

    Attributes:
        at_s: seconds since the simulator's start or last reset.
        organization: whose key it is.
        billed_nanos: what that organization was billed so far.
        model: its id.
        streamed: whether events are wanted.
        fingerprint: of the body.
        text: the body as canonical JSON.
    """

    at_s: float
    organization: str
    billed_nanos: int
    model: str = ""
    streamed: bool = False
    fingerprint: str = ""
    text: str = ""


class FaultPlan:
    """The faults of a scenario, with what they must remember."""

    def __init__(self, faults: tuple[Fault, ...], seed: int) -> None:
        self._at_door = [fault for fault in faults if fault.kind in AT_THE_DOOR]
        self._in_house = [
            (number, fault) for number, fault in enumerate(faults) if fault.kind not in AT_THE_DOOR
        ]
        self._seed = seed
        self._matches: Counter[int] = Counter()
        self._happened: Counter[int] = Counter()
        self._occurrences: Counter[int] = Counter()
        # A search in JSON text needs the needle as JSON writes it.
        self._needles = {
            number: json.dumps(fault.text, ensure_ascii=False)[1:-1]
            for number, fault in self._in_house
            if fault.text is not None
        }
        self.watches_door = bool(self._at_door)
        self.watches_house = bool(self._in_house)

    def at_door(self, arrival: Arrival) -> Fault | None:
        """An outage or a revoked key, for any endpoint."""
        return next((fault for fault in self._at_door if _circumstances_fit(fault, arrival)), None)

    def in_house(self, arrival: Arrival) -> Fault | None:
        """The first fault that applies to a valid Messages request."""
        # Half of the fingerprint as a number: a count for millions of prompts must stay small.
        prompt = int(arrival.fingerprint[:16], 16)
        self._occurrences[prompt] += 1
        occurrence = self._occurrences[prompt]
        for number, fault in self._in_house:
            if self._applies(number, fault, arrival, occurrence):
                self._happened[number] += 1
                return fault
        return None

    def _applies(self, number: int, fault: Fault, arrival: Arrival, occurrence: int) -> bool:
        if not _circumstances_fit(fault, arrival) or not self._fits_request(number, fault, arrival):
            return False
        if fault.attempts is not None and occurrence > fault.attempts:
            return False
        self._matches[number] += 1
        count = self._matches[number]
        if fault.nth and count not in fault.nth:
            return False
        if fault.every is not None and count % fault.every:
            return False
        if fault.times is not None and self._happened[number] >= fault.times:
            return False
        return fault.probability >= 1 or self._chance(number, arrival, occurrence) < fault.probability

    def _fits_request(self, number: int, fault: Fault, arrival: Arrival) -> bool:
        if fault.stream is not None and fault.stream != arrival.streamed:
            return False
        if fault.kind in STREAMED_ONLY and not arrival.streamed:
            return False
        if fault.model is not None and not fnmatchcase(arrival.model, fault.model):
            return False
        return fault.text is None or self._needles[number] in arrival.text

    def _chance(self, number: int, arrival: Arrival, occurrence: int) -> float:
        seen = f"{self._seed}/{number}/{arrival.fingerprint}/{occurrence}"
        digest = hashlib.blake2b(seen.encode(), digest_size=8).digest()
        return int.from_bytes(digest) / _TWO_TO_64


def _circumstances_fit(fault: Fault, arrival: Arrival) -> bool:
    if arrival.at_s < fault.from_s or (fault.until_s is not None and arrival.at_s >= fault.until_s):
        return False
    if fault.organization is not None and fault.organization != arrival.organization:
        return False
    return fault.after_usd is None or arrival.billed_nanos >= fault.after_usd * _NANOS_PER_DOLLAR
