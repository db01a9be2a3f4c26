"""Keys that come and go while a simulator runs."""

from collections.abc import Callable
from typing import Any

import pytest

from promptmill.simulator.process import SimulatorFailed
from promptmill.testing import SimulatorHandle

Send = Callable[..., Any]
ASK = {"model": "claude-sonnet-5", "max_tokens": 10, "messages": [{"role": "user", "content": "Why?"}]}


def test_a_revoked_key_is_refused_and_may_come_back(simulator: SimulatorHandle, send: Send) -> None:
    assert send(body=ASK, **{"x-api-key": "sk-one"}).status == 200
    simulator.change_keys(revoke=["sk-one"])
    refused = send(body=ASK, **{"x-api-key": "sk-one"})
    assert (refused.status, refused.json["error"]["type"]) == (401, "authentication_error")
    assert send(body=ASK, **{"x-api-key": None, "authorization": "Bearer sk-one"}).status == 401
    simulator.change_keys(add={"mine": ["sk-one"]})
    assert send(body=ASK, **{"x-api-key": "sk-one"}).status == 200


def test_a_key_that_comes_shares_the_limits_of_its_organization(
    simulator: SimulatorHandle, send: Send
) -> None:
    simulator.change_keys(add={"mine": ["sk-one", "sk-two"]})
    simulator.set_limits(rpm=1)
    assert [send(body=ASK, **{"x-api-key": name}).status for name in ("sk-one", "sk-two")] == [200, 429]


def test_a_wrong_change_is_refused(simulator: SimulatorHandle) -> None:
    with pytest.raises(SimulatorFailed, match="Input should be"):
        simulator._ask("POST", "keys", {"remove": ["sk-one"]})
