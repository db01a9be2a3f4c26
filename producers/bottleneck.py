"""What keeps a batch from going faster: a limit's dimension, the calls that may be in flight, or nothing."""

import time
from typing import TYPE_CHECKING, Self

from producers.limits_reader import START_REDIS, LimitsReader, is_fault
from promptmill.catalogue import Catalogue, limit_group
from promptmill.errors import PromptmillError
from promptmill.settings import Settings
from promptmill.store.batches import BatchRow

if TYPE_CHECKING:
    from promptmill.limits import PoolState

CONCURRENCY = "concurrency"

_NEARLY_ALL = 0.95
_KEEP_S = 1.0
"""Seconds for which an answer of the limiter is good enough."""


class Bottleneck:
    """Asks the limiter now and then; silent, not broken, while Redis is away."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reader = LimitsReader(settings)
        self._catalogue = Catalogue(settings.models)
        self._asked_at = float("-inf")
        self._dimension: str | None = None
        self._is_default = False
        self.fault: str | None = None
        """That Redis does not answer, and what to do about it; None where it does, or nobody had to ask."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.__exit__()

    def of(self, batch: BatchRow, *, waiting: int, running: int, slots: int) -> str | None:
        """What binds a batch.

        Args:
            batch: which.
            waiting: its jobs that could begin.
            running: its calls in flight.
            slots: calls that all its workers together can hold.
        """
        if not waiting:
            self.fault = None
            return None
        if slots and running >= _NEARLY_ALL * slots:
            return CONCURRENCY
        if time.monotonic() - self._asked_at > _KEEP_S:
            self._dimension = self._ask(batch.model)
            self._asked_at = time.monotonic()
        return self._dimension

    def is_default(self, bound_by: str | None) -> bool:
        """Whether what was found to bind is a limit that nobody has set, and no answer has taught."""
        return self._is_default and bound_by is not None and bound_by == self._dimension

    def _ask(self, model: str) -> str | None:
        """Whose account is called is the workers' affair: any pool of the model group may be the busiest."""
        from promptmill.limits import LimitSource  # noqa: PLC0415  # redis, which few commands need

        group = self._catalogue.group_of(model)
        self._is_default = False
        try:
            states = self._reader.states({group, limit_group(group, "fast")})
        except PromptmillError as error:
            is_one = is_fault(str(error), self._settings)
            self.fault = f"{error}; {START_REDIS}" if is_one else None
            return None
        self.fault = None
        busiest: PoolState | None = max(states, key=lambda state: state.in_flight, default=None)
        binding = busiest.binding() if busiest else None
        self._is_default = bool(busiest and binding and busiest[binding].source is LimitSource.DEFAULT)
        return binding
