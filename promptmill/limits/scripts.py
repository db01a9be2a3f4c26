"""The Lua scripts: their text, and a typed way to call each.

A script is the numbers of `Pacing` and the layout of `records`, then `prelude.lua`, then its own file. What KEYS and ARGV mean stands at
the head of each file; here they get names and types.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from hashlib import sha1
from importlib.resources import files

from promptmill.dimensions import DIMENSIONS, Amounts, Dimension, Headroom
from promptmill.limits.desk import Answer, Ask, Denial, Penalty, Pulse, Release, Report, Settlement
from promptmill.limits.policy import DEFAULT_LIMITS, LATELY, Ceilings, Pacing, Pool
from promptmill.limits.records import (
    EMPTY_RESERVATION,
    LAYOUT,
    POOL_FIELDS,
    RESERVATION_FIELDS,
    PoolRecord,
    Reservation,
    ceilings_per_second,
)

PREFIX = "promptmill:limit:"
POOLS = f"{PREFIX}pools"

NEWER = "a newer Promptmill keeps the record of this pool"
"""What a script says that finds a record of a later layout: it fails, and this process is granted nothing."""

LONGEST_PATIENCE = 1e9  # s; Lua reads no "inf" on some platforms

Text = str | bytes


@dataclass(frozen=True, slots=True)
class Call:
    """One script with its keys and arguments."""

    script: str
    keys: tuple[str, ...]
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of a pool's keys."""

    pool: Pool

    @property
    def record(self) -> str:
        """What is known of the pool."""
        return f"{PREFIX}{{{self.pool.tag}}}:record"

    @property
    def processes(self) -> str:
        """Heartbeats."""
        return f"{PREFIX}{{{self.pool.tag}}}:processes"

    def permits(self, process: str) -> str:
        """Permits of a process."""
        return f"{PREFIX}{{{self.pool.tag}}}:permits:{process}"

    def expired(self, process: str) -> str:
        """Permits that a process held when it was given up."""
        return f"{PREFIX}{{{self.pool.tag}}}:expired:{process}"


@cache
def script_text(name: str, pacing: Pacing) -> str:
    """The full text of a script."""
    folder = files("promptmill.limits") / "lua"
    text = "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in ("prelude", name))
    head = [f"local LAYOUT, LATELY, NEWER = {LAYOUT!r}, {LATELY:.0f}, '{NEWER}'", *_numbers(pacing, text)]
    head += _layout("record", PoolRecord(), POOL_FIELDS)
    head += _layout("reservation", EMPTY_RESERVATION, RESERVATION_FIELDS)
    return "\n".join([*head, text])


@cache
def script_sha(name: str, pacing: Pacing) -> str:
    """The name under which Redis keeps a script: it takes SHA-1."""
    return sha1(script_text(name, pacing).encode(), usedforsecurity=False).hexdigest()


def _numbers(pacing: Pacing, text: str) -> list[str]:
    """The numbers that a script uses, as Lua locals: each one costs every run a little."""
    lines = [f"local default_limits = {_table(DEFAULT_LIMITS)}"]
    for item in fields(pacing):
        value = getattr(pacing, item.name)
        if f"pacing_{item.name}" in text:
            number = _table(value) if isinstance(value, tuple) else repr(value)
            lines.append(f"local pacing_{item.name} = {number}")
    return lines


def _table(values: Iterable[object]) -> str:
    return f"{{ {', '.join(str(value) for value in values)} }}"


def _layout(name: str, example: PoolRecord | Reservation, names: Sequence[str]) -> list[str]:
    """Lua functions that read and write one kind of record, in the order of its fields."""
    reads, writes, place = [], [], 0
    for each in names:
        if isinstance(getattr(example, each), list):
            reads.append(f"{each} = {{ values[{place + 1}], values[{place + 2}], values[{place + 3}] }}")
            writes += [f"record.{each}[1]", f"record.{each}[2]", f"record.{each}[3]"]
            place += 3
        else:
            reads.append(f"{each} = values[{place + 1}]")
            writes.append(f"record.{each}")
            place += 1
    form = "<" + "d" * place
    return [
        f"local {name.upper()}_BYTES = {8 * place}",
        f"local function unpack_{name}(packed)",
        f"  local values = {{ struct.unpack('{form}', packed) }}",
        f"  return {{ {', '.join(reads)} }}",
        "end",
        f"local function pack_{name}(record) return struct.pack('{form}', {', '.join(writes)}) end",
    ]


class Calls:
    """Makes the calls of one process at one pool. `now` is None for Redis's clock; tests pass their own."""

    def __init__(self, pool: Pool, process: str) -> None:
        self._keys = keys = Keys(pool)
        self._process = process
        # Written out once: a name is quoted anew each time it is asked for.
        self._of_reports = (keys.record, keys.permits(process), keys.expired(process))
        self._of_asks = (keys.record, keys.processes, keys.permits(process))

    def acquire(self, asks: Sequence[Ask], ceilings: Ceilings, now: float | None) -> Call:
        """Ask for permits."""
        arguments = [_moment(now), self._process, *_rates(ceilings)]
        for ask in asks:
            patience = min(ask.patience, LONGEST_PATIENCE)
            arguments += [ask.id, *(repr(float(amount)) for amount in ask.amounts), repr(patience)]
        return Call("acquire", self._of_asks, tuple(arguments))

    def report(self, report: Report, ceilings: Ceilings, now: float | None) -> Call:
        """Say what became of a permit."""
        keys = self._of_reports
        head = (_moment(now), *_rates(ceilings), report.permit)
        if isinstance(report, Settlement):
            return Call("settle", keys, (*head, *_settled(report)))
        if isinstance(report, Release):
            return Call("release", keys, head)
        return Call("penalise", keys, (*head, *_penalised(report)))

    def confirm(self, now: float | None) -> Call:
        """Ask whether permits still hold."""
        return Call("confirm", (self._keys.record,), (_moment(now),))

    def teach(self, limits: Ceilings, ceilings: Ceilings, now: float | None) -> Call:
        """Say what the Rate Limits API states."""
        arguments = (_moment(now), *_rates(ceilings), *(_said(limit) for limit in limits))
        return Call("teach", (self._keys.record,), arguments)

    def forget(self) -> Call:
        """Ask that what is known of the pool be forgotten."""
        return Call("forget", (self._keys.record,), ())

    def register(self, now: float | None) -> Call:
        """Say that the pool is in use."""
        return Call("register", (POOLS,), (_moment(now), self._keys.pool.tag))

    def peek(self, now: float | None) -> Call:
        """Ask for the record."""
        return Call("peek", (self._keys.record,), (_moment(now),))

    def beat(self, now: float | None) -> Call:
        """Say that the process lives."""
        return Call("beat", (self._keys.processes,), (_moment(now), self._process))

    def expire(self, process: str, now: float | None) -> Call:
        """Give up the permits of a dead process."""
        keys = (
            self._keys.record,
            self._keys.processes,
            self._keys.permits(process),
            self._keys.expired(process),
        )
        return Call("expire", keys, (_moment(now), process))


def list_pools(now: float | None) -> Call:
    """Ask for the pools used lately."""
    return Call("pools", (POOLS,), (_moment(now),))


def read_pools(reply: Sequence[Text]) -> list[Pool]:
    """The reply of pools.lua."""
    return sorted((Pool.of_tag(_text(tag)) for tag in reply), key=lambda pool: pool.tag)


def _moment(now: float | None) -> str:
    return "" if now is None else repr(now)


@lru_cache
def _rates(ceilings: Ceilings) -> tuple[str, ...]:
    return tuple(repr(float(rate)) for rate in ceilings_per_second(ceilings))


def _said(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _limits(headroom: Headroom | None) -> tuple[str, ...]:
    return tuple(_said(headroom.limit(dimension)) if headroom else "" for dimension in DIMENSIONS)


def _remaining(headroom: Headroom | None) -> tuple[str, ...]:
    return tuple(_said(headroom.remaining(dimension)) if headroom else "" for dimension in DIMENSIONS)


def _settled(report: Settlement) -> tuple[str, ...]:
    used = ("", "") if report.used is None else _tokens(report.used)
    return ("1" if report.final else "0", *used, *_limits(report.headroom), *_remaining(report.headroom))


def _tokens(used: Amounts) -> tuple[str, str]:
    return repr(float(used.input_tokens)), repr(float(used.output_tokens))


def _penalised(report: Penalty) -> tuple[str, ...]:
    return (
        str(report.generation),
        "1" if report.refused else "0",
        repr(float(report.retry_after)),
        str(0 if report.dimension is None else DIMENSIONS.index(report.dimension) + 1),
        *_limits(report.headroom),
    )


def read_pulse(reply: Sequence[Text]) -> Pulse:
    """The reply of every script that reports."""
    return Pulse(int(reply[0]), float(reply[1]))


def read_answer(reply: Sequence[Sequence[Text] | Text]) -> Answer:
    """The reply of acquire.lua."""
    waits, denial, generation, paused_for = reply
    return Answer(
        waits=tuple(float(wait) for wait in waits),
        denial=_read_denial(denial) if denial else None,
        pulse=Pulse(int(_text(generation)), float(_text(paused_for))),
    )


def _read_denial(reply: Sequence[Text] | Text) -> Denial:
    ticket, starts_in, dimension, limit, interval = (float(figure) for figure in reply)
    return Denial(ticket, starts_in, _dimension(int(dimension)), limit, interval)


def _dimension(number: int) -> Dimension | None:
    return DIMENSIONS[number - 1] if number else None


def read_record(reply: Sequence[Text]) -> tuple[PoolRecord | None, float]:
    """The reply of peek.lua: the record, if there is one, and Redis's time."""
    now = float(reply[0])
    if len(reply) == 1:
        return None, now
    doubles = [float(figure) for figure in reply[2:]]
    return PoolRecord.from_doubles(doubles, _text(reply[1])), now


def _text(reply: Sequence[Text] | Text) -> str:
    return reply.decode() if isinstance(reply, bytes) else str(reply)
