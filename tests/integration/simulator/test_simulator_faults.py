"""Every fault of a scenario, as a client sees it over a real socket."""

import http.client
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from promptmill.testing import SimulatorHandle

Send = Callable[..., Any]
WHEN = {True: "streamed", False: "plain"}


REFUSALS: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"kind": "rate_limited"}, 429, "rate_limit_error", None),
    ({"kind": "rate_limited", "ramp": True}, 429, "rate_limit_error", "ramp_limit_exceeded"),
    ({"kind": "overloaded"}, 529, "overloaded_error", None),
    ({"kind": "server_error"}, 500, "api_error", None),
    ({"kind": "server_error", "status": 504}, 504, "timeout_error", None),
    ({"kind": "outage", "mode": "unavailable"}, 503, "api_error", None),
    ({"kind": "spend_cap"}, 429, "rate_limit_error", "enforced_spend_limit_reached"),
    ({"kind": "spend_cap", "form": "contract"}, 429, "rate_limit_error", "contract_spend_limit_reached"),
    ({"kind": "spend_cap", "form": "organization"}, 400, "invalid_request_error", None),
    ({"kind": "spend_cap", "form": "workspace"}, 400, "invalid_request_error", None),
    ({"kind": "spend_cap", "form": "billing"}, 402, "billing_error", None),
    ({"kind": "key_revoked"}, 401, "authentication_error", None),
    ({"kind": "forbidden"}, 403, "permission_error", None),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: "-".join(map(str, refusal[0].values())))
def test_a_refusal_has_status_type_and_code_and_bills_nothing(
    simulator: SimulatorHandle, send: Send, prompt: Send, refusal: tuple[dict[str, Any], int, str, str | None]
) -> None:
    fault, status, kind, code = refusal
    simulator.set_scenario(fault=[fault])
    got = send(body=prompt())
    error = got.json["error"]
    assert (got.status, error["type"], error.get("details", {}).get("error_code")) == (status, kind, code)
    assert got.json["request_id"] == got.headers["request-id"]
    assert "retry-after" not in got.headers
    book = simulator.ledger()
    assert book["billed"]["answers"] == 0
    assert book["faults"] == {fault["kind"]: 1}
    assert book["refused"]["by_status"] == {str(status): 1}


@pytest.mark.parametrize("kind", ["rate_limited", "overloaded", "server_error"])
def test_a_refusal_may_carry_a_huge_retry_after(
    simulator: SimulatorHandle, send: Send, prompt: Send, kind: str
) -> None:
    simulator.set_scenario(fault=[{"kind": kind, "retry_after_s": 86_400}])
    assert send(body=prompt()).headers["retry-after"] == "86400"


def test_a_proxy_answers_in_html(simulator: SimulatorHandle, send: Send, prompt: Send) -> None:
    simulator.set_scenario(fault=[{"kind": "server_error", "status": 502, "html": True}])
    got = send(body=prompt())
    assert (got.status, got.headers["content-type"]) == (502, "text/html; charset=UTF-8")
    assert got.body.startswith(b"<html>")


@pytest.mark.parametrize("streamed", [True, False], ids=WHEN.get)
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset"},
        {"kind": "hang", "pause_s": 0.05},
        {"kind": "outage"},
        {"kind": "outage", "mode": "hang", "pause_s": 0.05},
    ],
)
def test_a_reset_before_billing_costs_nothing(
    simulator: SimulatorHandle, send: Send, prompt: Send, fault: dict[str, Any], streamed: bool
) -> None:
    simulator.set_scenario(fault=[fault])
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        send(body=prompt(stream=streamed))
    assert simulator.ledger()["billed"]["answers"] == 0


def test_an_outage_takes_every_endpoint(simulator: SimulatorHandle, send: Send) -> None:
    simulator.set_scenario(fault=[{"kind": "outage", "mode": "unavailable"}])
    assert send("/v1/models", method="GET").status == 503


@pytest.mark.parametrize("streamed", [True, False], ids=WHEN.get)
def test_a_lost_reply_is_billed_and_never_seen(
    simulator: SimulatorHandle, send: Send, prompt: Send, streamed: bool
) -> None:
    simulator.set_scenario(fault=[{"kind": "lost_reply", "attempts": 1}])
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        send(body=prompt(stream=streamed))
    assert send(body=prompt(stream=streamed)).status == 200
    book = simulator.ledger()
    assert (book["lost"]["answers"], book["served"]["answers"]) == (1, 1)
    assert book["lost"]["usage"] == book["served"]["usage"]
    assert book["answered"] == {"1": 1}


@pytest.mark.parametrize("streamed", [True, False], ids=WHEN.get)
def test_what_is_held_is_answered_when_the_scenario_is_replaced(
    simulator: SimulatorHandle, send: Send, prompt: Send, wait_until: Callable[..., None], streamed: bool
) -> None:
    simulator.set_scenario(fault=[{"kind": "hold", "times": 1}])
    with ThreadPoolExecutor() as apart:
        held = apart.submit(send, body=prompt(stream=streamed))
        wait_until(
            lambda: simulator.ledger()["faults"] == {"hold": 1}
        )  # in flight it is before it has met it
        assert send(body=prompt("Another?")).status == 200
        assert simulator.ledger()["served"]["answers"] == 1
        simulator.set_scenario()
        assert held.result().status == 200
    book = simulator.ledger()
    assert (book["in_flight"], book["served"]["answers"], book["faults"]) == (0, 2, {"hold": 1})


def test_a_cut_stream_has_no_message_stop(simulator: SimulatorHandle, send: Send, prompt: Send) -> None:
    simulator.set_scenario(fault=[{"kind": "cut", "attempts": 1}])
    cut, whole = send(body=prompt(stream=True)), send(body=prompt(stream=True))
    assert "message_stop" not in dict(cut.events)
    assert "message_delta" not in dict(cut.events)
    assert len(cut.events) == pytest.approx(len(whole.events) / 2, abs=1)
    book = simulator.ledger()
    assert 0 < book["cut"]["usage"]["output_tokens"] < book["served"]["usage"]["output_tokens"]
    assert 0 < book["told_of_cut"]["usage"]["output_tokens"] < book["cut"]["usage"]["output_tokens"]


def test_a_stream_may_end_in_a_reset(simulator: SimulatorHandle, send: Send, prompt: Send) -> None:
    simulator.set_scenario(fault=[{"kind": "cut", "how": "reset"}])
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        send(body=prompt(stream=True))


def test_a_plain_reply_may_be_cut(simulator: SimulatorHandle, send: Send, prompt: Send) -> None:
    simulator.set_scenario(fault=[{"kind": "cut", "nth": 1}, {"kind": "cut", "how": "reset"}])
    with pytest.raises(json.JSONDecodeError):
        _ = send(body=prompt()).json
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        send(body=prompt())
    assert simulator.ledger()["lost"]["answers"] == 2


def test_an_error_event_ends_the_stream(simulator: SimulatorHandle, send: Send, prompt: Send) -> None:
    simulator.set_scenario(fault=[{"kind": "stream_error"}])
    got = send(body=prompt(stream=True))
    assert got.status == 200
    name, data = got.events[-1]
    assert (name, json.loads(data)["error"]) == (
        "error",
        {"type": "overloaded_error", "message": "Overloaded"},
    )
    assert simulator.ledger()["cut"]["answers"] == 1


def test_a_malformed_event_is_no_json(simulator: SimulatorHandle, send: Send, prompt: Send) -> None:
    simulator.set_scenario(fault=[{"kind": "malformed_event"}])
    broken = []
    for _, data in send(body=prompt(stream=True)).events:
        try:
            json.loads(data)
        except ValueError:
            broken.append(data)
    assert len(broken) == 1


def test_an_unknown_event_stands_between_known_ones(
    simulator: SimulatorHandle, send: Send, prompt: Send
) -> None:
    simulator.set_scenario(fault=[{"kind": "unknown_event"}])
    names = [name for name, _ in send(body=prompt(stream=True)).events]
    assert "weather_report" in names
    assert names[-1] == "message_stop"


@pytest.mark.parametrize("streamed", [True, False], ids=WHEN.get)
def test_a_stall_delays_the_rest(
    simulator: SimulatorHandle, send: Send, prompt: Send, streamed: bool
) -> None:
    simulator.set_scenario(fault=[{"kind": "stall", "pause_s": 0.3}])
    begun = time.monotonic()
    assert send(body=prompt(stream=streamed)).status == 200
    assert time.monotonic() - begun >= 0.3


@pytest.mark.parametrize("streamed", [True, False], ids=WHEN.get)
def test_a_slow_drip_cuts_characters_and_is_whole_in_the_end(
    simulator: SimulatorHandle, send: Send, prompt: Send, streamed: bool
) -> None:
    body = prompt("小明有几个苹果", stream=streamed, max_tokens=60)
    whole = send(body=body).body
    simulator.set_scenario(fault=[{"kind": "slow_drip", "piece_bytes": 5, "pause_s": 0.0001}])
    dripped = send(body=body).body
    assert len(dripped) == len(whole)
    assert simulator.ledger()["served"]["answers"] == 2


def test_an_answer_may_be_chosen(simulator: SimulatorHandle, send: Send, prompt: Send) -> None:
    simulator.set_scenario(
        fault=[
            {"kind": "answer", "stop_reason": "refusal", "category": "bio", "text": "virus"},
            {"kind": "answer", "reply": "四十二 🙂", "text": "meaning"},
            {"kind": "answer", "stop_reason": "pause_turn"},
        ]
    )
    refused = send(body=prompt("Grow a virus")).json
    assert (refused["stop_reason"], refused["stop_details"]["category"], refused["content"]) == (
        "refusal",
        "bio",
        [],
    )
    assert send(body=prompt("The meaning of life")).json["content"][-1]["text"] == "四十二 🙂"
    assert send(body=prompt()).json["stop_reason"] == "pause_turn"


def test_a_spend_cap_begins_after_so_much_money(simulator: SimulatorHandle, send: Send, prompt: Send) -> None:
    simulator.set_scenario(fault=[{"kind": "spend_cap", "after_usd": 0.000001}])
    assert [send(body=prompt()).status for _ in range(3)] == [200, 429, 429]


def test_a_client_that_leaves_has_lost_its_reply(
    simulator: SimulatorHandle, send: Send, prompt: Send, wait_until: Callable[..., None]
) -> None:
    simulator.set_scenario(fault=[{"kind": "hold"}])
    body = json.dumps(prompt()).encode()
    connection = http.client.HTTPConnection(simulator.url.removeprefix("http://"))
    headers = {"x-api-key": "k", "anthropic-version": "2026-10-21"}
    connection.request("POST", "/v1/messages", body, headers)
    wait_until(lambda: simulator.ledger()["faults"] == {"hold": 1})
    connection.close()
    simulator.set_scenario()
    wait_until(lambda: simulator.ledger()["lost"]["answers"] == 1)
    assert simulator.ledger()["served"]["answers"] == 0
