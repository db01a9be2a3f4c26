"""A simulator as a child process, and a handle to ask it about itself.

The one idea: the child ends with its parent, whatever happens: it watches the pipe on its standard input and
who its parent is. It runs in a session of its own, so Ctrl-C in a terminal reaches the parent alone.
"""

import contextlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from promptmill.errors import PromptmillError
from promptmill.simulator.config import SimulatorConfig

_ADMIN_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5.0


class SimulatorFailed(PromptmillError):
    """The child process did not start, or an admin call was refused; the message says why."""


class SimulatorHandle:
    """A running simulator.

    Attributes:
        url: its address, to be used as base URL.
        pid: of its process; None for one that somebody else started.
    """

    def __init__(self, url: str, pid: int | None = None) -> None:
        self.url = url
        self.pid = pid

    def ledger(self, *, detail: bool = False) -> dict[str, Any]:
        """What was served, refused and billed; `detail` adds each prompt's count, each second, the latest calls and bills."""
        return self._ask("GET", "ledger?detail=1" if detail else "ledger")

    def bills(self, after: int = 0) -> dict[str, Any]:
        """What single calls were billed, many at once: `[number, nano-dollars or null, fate]` under `bills`.

        `request_ids` is what the ids of its calls begin with, their number follows in nine hexadecimal digits; those
        up to `first` are of the time before the last reset.
        """
        return self._ask("GET", f"bills?after={after}")

    def health(self) -> dict[str, Any]:
        """Version, pid, CPU seconds, memory."""
        return self._ask("GET", "health")

    def limits(self) -> list[dict[str, Any]]:
        """The pools: limits, capacities, levels, admitted amounts."""
        pools: list[dict[str, Any]] = self._ask("GET", "limits")["pools"]
        return pools

    def reset(self) -> None:
        """Full buckets, an empty book, the scenario from its first second."""
        self._ask("POST", "reset", {})

    def set_limits(
        self,
        *,
        rpm: float | None = None,
        itpm: float | None = None,
        otpm: float | None = None,
        organization: str | None = None,
        group: str | None = None,
    ) -> None:
        """Put other limits per minute in force at once; 0 = no limit, None = as it is."""
        values = {"rpm": rpm, "itpm": itpm, "otpm": otpm, "organization": organization, "group": group}
        self._ask("POST", "limits", {name: value for name, value in values.items() if value is not None})

    def change_keys(
        self, *, add: Mapping[str, Sequence[str]] | None = None, revoke: Sequence[str] = ()
    ) -> None:
        """Keys that come, by organization, and keys that are refused from now on."""
        self._ask(
            "POST",
            "keys",
            {"add": {name: [*keys] for name, keys in (add or {}).items()}, "revoke": [*revoke]},
        )

    def set_scenario(self, **tables: Any) -> None:
        """Replace the scenario: `set_scenario(fault=[{"kind": "overloaded", "nth": 1}])`; nothing = no faults.

        Faults change at once, `tenant` and `limits` tables from the next `reset()` on.
        """
        self._ask("POST", "scenario", tables)

    def _ask(self, method: str, name: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(place.netloc, timeout=_ADMIN_TIMEOUT_S)
        try:
            connection.request(method, f"/_admin/{name}", None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise SimulatorFailed(answer["error"]["message"])
        return answer


class SimulatorProcess(SimulatorHandle):
    """A simulator in a child process of ours; a context manager that ends it."""

    def __init__(self, config: SimulatorConfig) -> None:
        """Start it and wait until it accepts connections.

        Raises:
            SimulatorFailed: it did not start; the message is its own.
        """
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "promptmill.simulator", "--child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        first = self._exchange(json.dumps(config.to_json()))
        if "url" not in first:
            self.close()
            raise SimulatorFailed(first.get("error", "the simulator ended before it was ready"))
        super().__init__(first["url"], self._child.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """False once the process has ended."""
        return self._child.poll() is None

    def close(self) -> None:
        """End the process; does nothing when it has ended."""
        for pipe in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._child.terminate()
        try:
            self._child.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _exchange(self, line: str) -> dict[str, Any]:
        assert self._child.stdin is not None  # noqa: S101  for the type checker: both are pipes
        assert self._child.stdout is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()
        answer = self._child.stdout.readline()
        return dict(json.loads(answer)) if answer else {}


@contextlib.contextmanager
def running_simulator(config: SimulatorConfig) -> Iterator[SimulatorProcess]:
    """A simulator for the length of a `with` block."""
    with SimulatorProcess(config) as simulator:
        yield simulator
