"""What users' tests and our own share.

The one idea: a test talks HTTP to a simulated Claude in a process of its own, instead of mocking a client.
"""

from contextlib import AbstractContextManager
from typing import Any

from promptmill.simulator.config import SimulatorConfig
from promptmill.simulator.process import SimulatorHandle, SimulatorProcess
from promptmill.simulator.scenario import read_scenario

__all__ = ["SimulatorHandle", "simulated_claude"]


def simulated_claude(**config: Any) -> AbstractContextManager[SimulatorProcess]:
    """A simulated Claude on a free port, for the length of a `with` block.

    It has no limits and no latency, except for what `config` or its scenario file says; the fields are those
    of `promptmill.simulator.config.SimulatorConfig`:

        with simulated_claude(rpm=600, faults=[{"kind": "overloaded", "nth": 3}]) as claude:
            ...                       # base URL: claude.url; any key will do
            assert claude.ledger()["answered"] == {"1": 100}

    Raises:
        SimulatorFailed: it did not start; the message is its own.
        ConfigurationError: a field has an unusable value.
        InvalidInput: the scenario file is at fault.
    """
    brought = read_scenario(config["scenario"])[1] if config.get("scenario") else {}
    return SimulatorProcess(SimulatorConfig.unlimited(**{"port": 0, **brought, **config}))
