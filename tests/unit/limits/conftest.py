"""Virtual time for the tests of this folder; whole rehearsals are in bench/rehearsal."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from bench.rehearsal.virtual import LoopClock, run_virtually


@pytest.fixture
def virtually() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """`virtually(coroutine)` runs it in virtual time and returns its result."""
    return run_virtually


@pytest.fixture
def loop_clock() -> LoopClock:
    return LoopClock()
