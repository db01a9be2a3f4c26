"""What stands between the waiting calls of a process and the one record of a pool.

A desk answers asks in the order they are put, and takes reports of what became of a permit. There are two:
`LocalDesk` keeps the record in this process, `RedisDesk` shares it. Nothing here waits for a permit; the
`Acquirer` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from promptmill.dimensions import Amounts, Dimension, Headroom
from promptmill.errors import PromptmillError
from promptmill.limits.policy import Ceilings
from promptmill.limits.records import PoolRecord


class DeskUnavailable(PromptmillError):
    """The record cannot be reached; nothing may be granted until it can."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One waiting call: what it needs, and how many seconds it will still wait."""

    id: str
    amounts: Amounts
    patience: float


@dataclass(frozen=True, slots=True)
class Pulse:
    """Whether a permit that was granted a moment ago still holds."""

    generation: int
    paused_for: float


@dataclass(frozen=True, slots=True)
class Denial:
    """Why the first ask that was not granted was not, and when to ask again.

    Attributes:
        ticket: s until this process may ask again.
        starts_in: s until that call could begin, as far as is known.
        dimension: what it waits for; None when it is a pause or another process's turn.
        too_large: per minute, the limit that the ask can never fit into; 0 when it can.
        interval: mean s between two permits, to guess how long those behind it will wait.
    """

    ticket: float
    starts_in: float
    dimension: Dimension | None
    too_large: float
    interval: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the asks: seconds until the start of each one granted, always the first ones."""

    waits: tuple[float, ...]
    denial: Denial | None
    pulse: Pulse


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a call used. `final` is False for what is known at its beginning: input and headers."""

    permit: str
    used: Amounts | None
    headroom: Headroom | None
    final: bool = True

    @property
    def failed(self) -> bool:
        """Whether the call was made and used no token: a failure that tells nothing about answers."""
        return (
            self.final and self.used is not None and not (self.used.input_tokens or self.used.output_tokens)
        )


@dataclass(frozen=True, slots=True)
class Release:
    """Nothing was sent: everything is given back."""

    permit: str


@dataclass(frozen=True, slots=True)
class Penalty:
    """The server refused the call: for our pace (429), or else for its own load (529).

    `dimension` is None when the server did not name one, or refused a ramp.
    """

    permit: str
    generation: int
    refused: bool
    retry_after: float
    dimension: Dimension | None
    headroom: Headroom | None


Report = Settlement | Release | Penalty


class Desk(Protocol):
    """One process's access to one pool."""

    async def acquire(self, asks: Sequence[Ask]) -> Answer:
        """Grant a prefix of the asks. No asks at all gives up this process's turn.

        Raises:
            DeskUnavailable: nothing was granted that this process will hear of.
        """
        ...

    async def confirm(self) -> Pulse:
        """Ask whether anything happened since a permit was granted.

        Raises:
            DeskUnavailable: nobody knows.
        """
        ...

    async def report(self, report: Report) -> None:
        """Take a report; kept and repeated while the record is out of reach."""
        ...

    async def teach(self, limits: Ceilings) -> None:
        """Take over limits as the Rate Limits API states them.

        Raises:
            DeskUnavailable: nobody was told.
        """
        ...

    async def forget(self) -> bool:
        """Forget the record, so that the next call begins a fresh one; whether there was one.

        Raises:
            DeskUnavailable: it may have been forgotten or not.
        """
        ...

    async def peek(self) -> tuple[PoolRecord, float]:
        """The record as it is, and the moment it was read on its own clock."""
        ...

    async def beat(self) -> None:
        """Say that this process lives, and give up the permits of those that do not."""
        ...

    async def aclose(self) -> None:
        """Deliver what is still kept, within a second, and stop."""
        ...
