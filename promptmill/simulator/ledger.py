"""What the simulator served, refused and billed: the other side's book, to hold one's own against.

The one idea: totals and digests only, so that millions of requests stay cheap: about 110 bytes for each distinct
prompt, a line for each second, the last 10,000 refusals, 20,000 admitted calls and 100,000 billed answers. Money is exact, priced per answer like a client does.

An answer ends up in one of three places: `served` (sent whole), `cut` (billed, a part was sent) or `lost` (billed,
nothing of its cost reached the client). `billed` is the sum of the three.
"""

import time
from array import array
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, NamedTuple

from promptmill.pricing import price_of, usd
from promptmill.usage import Usage

_SECONDS_KEPT = 86_400
_REFUSALS_KEPT = 10_000
_CALLS_KEPT = 20_000
_UNPRICED = -1
_BILLS_KEPT = 100_000


class Fate(StrEnum):
    """How the sending of an answer ended."""

    SERVED = "served"
    CUT = "cut"
    LOST = "lost"


_FATES = tuple(Fate)


@dataclass(slots=True)
class Bill:
    """A sum of answers, their tokens and their cost; plain counters, because one is added to per answer."""

    answers: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_read_tokens: int = 0
    cost_nanos: int = 0
    unpriced: int = 0

    def add(self, usage: Usage, cost_nanos: int | None) -> None:
        """Add one answer; an unknown cost is counted, not guessed."""
        self.answers += 1
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.cache_write_tokens += usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
        self.cache_write_1h_tokens += usage.cache_write_1h_tokens
        self.cache_read_tokens += usage.cache_read_tokens
        if cost_nanos is None:
            self.unpriced += 1
        else:
            self.cost_nanos += cost_nanos

    def merge(self, other: "Bill") -> None:
        """Add everything of another sum."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def to_json(self) -> dict[str, Any]:
        """Plain values; tokens under the names of the API."""
        return {
            "answers": self.answers,
            "usage": {
                "input_tokens": self.input_tokens,
                "output_tokens": self.output_tokens,
                "cache_creation_input_tokens": self.cache_write_tokens,
                "cache_creation_1h_input_tokens": self.cache_write_1h_tokens,
                "cache_read_input_tokens": self.cache_read_tokens,
            },
            "cost_nanos": self.cost_nanos,
            "cost_usd": usd(self.cost_nanos),
            "unpriced": self.unpriced,
        }


@dataclass(slots=True)
class Second:
    """What happened in one second since the start."""

    arrived: int = 0
    admitted: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    levels: dict[str, tuple[float | None, float | None, float | None]] = field(default_factory=dict)


class AdmittedCall(NamedTuple):
    """What one call takes of the limits, and when. Times are seconds since the start or the last reset.

    Attributes:
        at_s: when it was admitted: its request and its input are debited.
        input_tokens: what counts against the limit, so without cache reads.
        begins_s: when its first token is produced.
        ends_s: when its last one is; output is debited evenly in between.
        output_tokens: how many are produced.
        prompt: the fingerprint.
    """

    at_s: float
    input_tokens: int
    begins_s: float
    ends_s: float
    output_tokens: int
    prompt: str


class BilledAnswer(NamedTuple):
    """One line of the bill, to be held against an attempt of one's own.

    Attributes:
        request_id: as the response's header said it.
        prompt: the fingerprint.
        fate: how sending it ended.
        cost_nanos: nano-dollars; None where the model has no price.
    """

    request_id: str
    prompt: str
    fate: Fate
    cost_nanos: int | None


class Ledger:
    """The book of one simulator, from its start or last reset on. Times are monotonic seconds."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._wall = time.time()
        self._arrived = 0
        self._streamed = 0
        self._counted = 0
        self._in_flight = 0
        self._peak = 0
        self._bills: dict[Fate, Bill] = {fate: Bill() for fate in Fate}
        self._told = Bill()
        self._models: dict[str, Bill] = {}
        self._organizations: Counter[str] = Counter()
        self._statuses: Counter[int] = Counter()
        self._reasons: Counter[str] = Counter()
        self._refusals: deque[tuple[float, int, str, str]] = deque(maxlen=_REFUSALS_KEPT)
        self._calls: deque[AdmittedCall] = deque(maxlen=_CALLS_KEPT)
        self._lines: deque[BilledAnswer] = deque(maxlen=_BILLS_KEPT)
        self._faults: Counter[str] = Counter()
        self._answered: dict[bytes, int] = {}
        self._billed_calls = array("Q")
        self._billed_nanos = array("q")
        self._billed_fates = bytearray()
        self._seconds: OrderedDict[int, Second] = OrderedDict()
        self._first: float | None = None
        self._last: float | None = None

    @property
    def since(self) -> str:
        """When the book was begun, in UTC."""
        return _rfc3339(self._wall)

    def since_start(self, now: float) -> float:
        """Seconds since the start or the last reset."""
        return now - self._started

    def arrive(self, now: float) -> None:
        """A Messages request came in."""
        self._arrived += 1
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        if self._first is None:
            self._first = now - self._started
        self.second(now).arrived += 1

    def leave(self, now: float) -> None:
        """A Messages request is done, one way or another."""
        self._in_flight -= 1
        self._last = now - self._started

    def admit(self, now: float, input_tokens: int) -> None:
        """A request was debited."""
        second = self.second(now)
        second.admitted += 1
        second.input_tokens += input_tokens

    def plan(
        self, now: float, input_tokens: int, *, begins: float, seconds: float, output_tokens: int, prompt: str
    ) -> None:
        """What an admitted request will take of the limits, and when; `begins` is a monotonic moment."""
        at, first = now - self._started, begins - self._started
        self._calls.append(
            AdmittedCall(
                round(at, 4), input_tokens, round(first, 4), round(first + seconds, 4), output_tokens, prompt
            )
        )

    def refuse(self, now: float, status: int, reason: str, organization: str) -> None:
        """A request to any endpoint was answered with an error; `organization` is empty without a valid key."""
        self._statuses[status] += 1
        self._reasons[reason] += 1
        self._refusals.append((round(now - self._started, 3), status, reason, organization))
        self.second(now).refused += 1

    def inject(self, kind: str) -> None:
        """A fault of the scenario happened."""
        self._faults[kind] += 1

    def count(self) -> None:
        """A count_tokens request was answered."""
        self._counted += 1

    def bill(
        self,
        fate: Fate,
        usage: Usage,
        *,
        now: float,
        request_id: str,
        fingerprint: str,
        model: str,
        organization: str,
        streamed: bool,
        told: Usage | None = None,
        inference_geo: str | None = None,
        speed: str | None = None,
    ) -> None:
        """Write down an answer that was made.

        Args:
            fate: how sending it ended.
            usage: what is billed.
            now: the moment.
            request_id: of the call.
            fingerprint: of the prompt.
            model: that answered.
            organization: that pays.
            streamed: whether it was sent as events.
            told: of a cut answer, the usage the client was told before the cut.
            inference_geo: of the reply's usage.
            speed: of the reply's usage.
        """
        cost = price_of(usage, model=model, inference_geo=inference_geo, speed=speed)
        self._bills[fate].add(usage, cost)
        self._lines.append(BilledAnswer(request_id, fingerprint, fate, cost))
        self._billed_calls.append(_number_of(request_id))
        self._billed_nanos.append(_UNPRICED if cost is None else cost)
        self._billed_fates.append(_FATES.index(fate))
        bill = self._models.get(model)
        if bill is None:
            bill = self._models[model] = Bill()
        bill.add(usage, cost)
        self._organizations[organization] += cost or 0
        self._streamed += streamed
        self.second(now).output_tokens += usage.output_tokens
        if fate is Fate.SERVED:
            prompt = bytes.fromhex(fingerprint)
            self._answered[prompt] = self._answered.get(prompt, 0) + 1
        elif told is not None:
            self._told.add(told, price_of(told, model=model, inference_geo=inference_geo, speed=speed))

    def bills(self, after: int, most: int) -> list[tuple[int, int | None, str]]:
        """What each call was billed, in the order of billing: its number, nano-dollars, and its fate.

        Leaves out the first `after` of them; `most` at once.
        """
        some = slice(after, after + most)
        return [
            (call, None if nanos == _UNPRICED else nanos, _FATES[fate].value)
            for call, nanos, fate in zip(
                self._billed_calls[some], self._billed_nanos[some], self._billed_fates[some], strict=True
            )
        ]

    def billed_to(self, organization: str) -> int:
        """Nano-dollars that an organization was billed so far."""
        return self._organizations[organization]

    def second(self, now: float) -> Second:
        """The line of the present second."""
        number = int(now - self._started)
        line = self._seconds.get(number)
        if line is None:
            line = self._seconds[number] = Second()
            if len(self._seconds) > _SECONDS_KEPT:
                self._seconds.popitem(last=False)
        return line

    def to_json(self, now: float, *, detail: bool = False) -> dict[str, Any]:
        """The whole book; `detail` adds every prompt's count, every second, the latest calls and bills."""
        billed = Bill()
        for bill in self._bills.values():
            billed.merge(bill)
        book: dict[str, Any] = {
            "since": self.since,
            "uptime_s": round(now - self._started, 3),
            "first_arrival_s": self._first,
            "last_reply_s": self._last,
            "requests": self._arrived,
            "streamed": self._streamed,
            "count_tokens": self._counted,
            "in_flight": self._in_flight,
            "peak_in_flight": self._peak,
            "billed": billed.to_json(),
            **{fate.value: bill.to_json() for fate, bill in self._bills.items()},
            "told_of_cut": self._told.to_json(),
            "models": {model: bill.to_json() for model, bill in sorted(self._models.items())},
            "organizations": {name: {"cost_nanos": nanos} for name, nanos in self._organizations.items()},
            "refused": {
                "total": self._statuses.total(),
                "by_status": {str(status): count for status, count in sorted(self._statuses.items())},
                "by_reason": dict(self._reasons),
                "times": [list(refusal) for refusal in self._refusals],
            },
            "faults": dict(self._faults),
            "answered": {str(n): count for n, count in sorted(Counter(self._answered.values()).items())},
        }
        if detail:
            book["prompts"] = {prompt.hex(): count for prompt, count in self._answered.items()}
            book["seconds"] = [_line(number, line) for number, line in self._seconds.items()]
            book["calls"] = [call._asdict() for call in self._calls]
            book["bills"] = [line._asdict() for line in self._lines]
        return book


def _line(number: int, line: Second) -> dict[str, Any]:
    return {
        "at_s": number,
        "arrived": line.arrived,
        "admitted": line.admitted,
        "refused": line.refused,
        "input_tokens": line.input_tokens,
        "output_tokens": line.output_tokens,
        "levels": {pool: list(levels) for pool, levels in line.levels.items()},
    }


def _number_of(request_id: str) -> int:
    """The number at the end of a request id: nine hexadecimal digits."""
    return int(request_id.rpartition("_")[2][-9:], 16)


def _rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
