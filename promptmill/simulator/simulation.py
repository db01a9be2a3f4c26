"""Everything one simulator remembers, and how it is set back to the start."""

import asyncio
from itertools import count
from typing import Any

from promptmill.clock import Clock
from promptmill.simulator.answers import Author
from promptmill.simulator.config import SimulatorConfig
from promptmill.simulator.faults import FaultPlan
from promptmill.simulator.ledger import Ledger
from promptmill.simulator.models import Menu
from promptmill.simulator.organizations import Organizations
from promptmill.simulator.scenario import Scenario, parse_scenario


class Simulation:
    """The state behind the endpoints.

    Args:
        config: with the scenario's settings already filled in.
        scenario: what is to happen.
        clock: monotonic time, waiting, and today.
    """

    def __init__(self, config: SimulatorConfig, scenario: Scenario, clock: Clock) -> None:
        self.config = config
        self.scenario = scenario
        self.clock = clock
        self.menu = Menu(config.models, config.token_factor)
        self.author = Author(config)
        # Unique across restarts, as the real ids are.
        self._prefix = f"{int(clock.now().timestamp()):09x}"
        self._numbers = count(1)
        self._replaced = asyncio.Event()
        self.reset()

    def reset(self) -> None:
        """Full buckets, an empty book and cache, the scenario from its first second."""
        self.first_number = next(self._numbers)
        self.started = self.clock.monotonic()
        self.ledger = Ledger(self.started)
        self.organizations = Organizations(self.config, self.scenario, self.started)
        self._begin(self.scenario)

    def play(self, tables: dict[str, Any]) -> None:
        """Replace the scenario: faults at once, tenants and changes of limits from the next reset on.

        Seconds still count from the start or the last reset.

        Raises:
            InvalidInput: a field is at fault.
        """
        self._begin(parse_scenario(tables)[0])

    async def next_scenario(self) -> None:
        """Wait until the scenario is replaced, or set back to its first second."""
        await self._replaced.wait()

    def _begin(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.faults = FaultPlan(scenario.faults, self.config.seed)
        self._replaced.set()
        self._replaced = asyncio.Event()

    def next_id(self, kind: str) -> str:
        """A fresh id with the prefix of its kind (`req`, `msg`)."""
        return f"{kind}_01sim{self._prefix}{next(self._numbers):09x}"

    @property
    def request_ids(self) -> str:
        """What the request ids of this process begin with; nine hexadecimal digits follow."""
        return f"req_01sim{self._prefix}"

    def sample_levels(self) -> None:
        """Note every pool's levels in the book's present second."""
        now = self.clock.monotonic()
        self.organizations.catch_up(now)
        for organization in self.organizations:
            for group, pool in organization.pools.items():
                self.ledger.second(now).levels[f"{organization.name}/{group}"] = pool.levels(now)
