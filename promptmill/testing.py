"""What users' tests and our own share.

The one idea: a test talks HTTP to a simulated Claude in a process of its own, instead of mocking a client.
`a_prompt` and `a_batch` make the smallest valid thing, so that a test names only what it is about.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from promptmill.catalogue import group_of
from promptmill.clock import SystemClock
from promptmill.ids import new_id
from promptmill.prompts import Prompt
from promptmill.simulator.config import SimulatorConfig
from promptmill.simulator.process import SimulatorHandle, SimulatorProcess
from promptmill.simulator.scenario import read_scenario

if TYPE_CHECKING:
    from promptmill.store.batches import BatchRow
    from promptmill.store.database import Database

__all__ = ["SimulatorHandle", "a_batch", "a_prompt", "simulated_claude"]

MODEL = "claude-sonnet-5"


def a_prompt(text: str = "What is 2 + 2?", **fields: Any) -> Prompt:
    """A small prompt; `fields` stand over its own."""
    return Prompt(
        {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": text}], **fields}
    )


def a_batch(database: "Database", jobs: int | Iterable[Prompt] = 3, **fields: Any) -> "BatchRow":
    """A sealed batch in the database; `fields` are those of `promptmill.store.batches.NewBatch`."""
    from promptmill.store import batches, control  # noqa: PLC0415  # tests without a store need not load it
    from promptmill.store.jobs import NewJob, insert_many  # noqa: PLC0415  # likewise

    prompts = [a_prompt(f"What is {n} + {n}?") for n in range(jobs)] if isinstance(jobs, int) else list(jobs)
    now = SystemClock().now()
    facts = {"name": new_id("test"), "model": MODEL, "shared": {}, "endpoint": "simulated", "simulated": True}
    rows = [
        NewJob(
            seq=seq,
            custom_id=f"row-{seq}",
            model_group=group_of(prompt.model),
            body=prompt.body,
            fingerprint=prompt.fingerprint,
            estimated_input_tokens=20,
            estimated_output_tokens=50,
        )
        for seq, prompt in enumerate(prompts)
    ]
    with database.begin() as connection:
        batch = batches.create(connection, batches.NewBatch(**{**facts, **fields}), now)
        insert_many(connection, batch.id, rows, now)
        return control.seal(connection, batch.id, now)


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
