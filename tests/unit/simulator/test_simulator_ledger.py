"""The book: sums, fates, and what a prompt was answered."""

from typing import Any

from promptmill.pricing import price_of
from promptmill.simulator.ledger import Fate, Ledger
from promptmill.usage import Usage


def bill(
    ledger: Ledger, fate: Fate, usage: Usage, *, prompt: int = 1, told: Usage | None = None, **more: Any
) -> None:
    facts = {
        "model": "claude-sonnet-5",
        "organization": "acme",
        "streamed": False,
        "now": 0.5,
        "request_id": "req_1",
    }
    facts |= more
    ledger.bill(fate, usage, fingerprint=f"{prompt:032x}", told=told, **facts)


def test_the_bill_is_the_sum_of_served_cut_and_lost() -> None:
    ledger = Ledger(0.0)
    one = Usage(input_tokens=1_001, output_tokens=333, cache_read_tokens=7)
    for fate in Fate:
        bill(ledger, fate, one)
    book = ledger.to_json(1.0)
    assert book["billed"]["answers"] == 3
    assert book["billed"]["usage"]["input_tokens"] == 3_003
    assert book["billed"]["cost_nanos"] == 3 * price_of(one, model="claude-sonnet-5")
    assert sum(book[fate]["cost_nanos"] for fate in Fate) == book["billed"]["cost_nanos"]
    assert book["models"]["claude-sonnet-5"] == book["billed"]
    assert book["organizations"] == {"acme": {"cost_nanos": book["billed"]["cost_nanos"]}}


def test_what_a_cut_answer_told_is_kept_apart() -> None:
    ledger = Ledger(0.0)
    bill(
        ledger,
        Fate.CUT,
        Usage(input_tokens=10, output_tokens=100),
        told=Usage(input_tokens=10, output_tokens=4),
    )
    book = ledger.to_json(1.0)
    assert book["cut"]["usage"]["output_tokens"] == 100
    assert book["told_of_cut"]["usage"]["output_tokens"] == 4


def test_only_a_whole_reply_answers_a_prompt() -> None:
    ledger = Ledger(0.0)
    bill(ledger, Fate.SERVED, Usage(), prompt=1)
    bill(ledger, Fate.SERVED, Usage(), prompt=2)
    bill(ledger, Fate.SERVED, Usage(), prompt=2)
    bill(ledger, Fate.LOST, Usage(), prompt=3)
    book = ledger.to_json(1.0, detail=True)
    assert book["answered"] == {"1": 1, "2": 1}
    assert book["prompts"] == {f"{1:032x}": 1, f"{2:032x}": 2}


def test_each_billed_answer_is_a_line_with_its_request_and_cost() -> None:
    ledger = Ledger(0.0)
    one = Usage(input_tokens=1_001, output_tokens=333)
    bill(ledger, Fate.SERVED, one, prompt=1, request_id="req_a")
    bill(ledger, Fate.LOST, one, prompt=2, request_id="req_b")
    cost = price_of(one, model="claude-sonnet-5")
    assert ledger.to_json(1.0, detail=True)["bills"] == [
        {"request_id": "req_a", "prompt": f"{1:032x}", "fate": "served", "cost_nanos": cost},
        {"request_id": "req_b", "prompt": f"{2:032x}", "fate": "lost", "cost_nanos": cost},
    ]


def test_an_unknown_price_is_counted_and_not_guessed() -> None:
    ledger = Ledger(0.0)
    bill(ledger, Fate.SERVED, Usage(input_tokens=5), model="claude-of-the-future")
    billed = ledger.to_json(1.0)["billed"]
    assert (billed["cost_nanos"], billed["unpriced"]) == (0, 1)


def test_refusals_are_counted_by_status_and_reason_with_their_times() -> None:
    ledger = Ledger(10.0)
    ledger.refuse(12.5, 429, "requests", "acme")
    ledger.refuse(13.0, 529, "fault:overloaded", "acme")
    refused = ledger.to_json(14.0)["refused"]
    assert refused["total"] == 2
    assert refused["by_status"] == {"429": 1, "529": 1}
    assert refused["times"][0] == [2.5, 429, "requests", "acme"]


def test_the_peak_in_flight_is_remembered() -> None:
    ledger = Ledger(0.0)
    ledger.arrive(0.0)
    ledger.arrive(0.1)
    ledger.leave(0.2)
    book = ledger.to_json(1.0, detail=True)
    assert (book["in_flight"], book["peak_in_flight"]) == (1, 2)
    assert book["seconds"][0]["arrived"] == 2


def test_a_planned_call_is_told_in_seconds_since_the_start() -> None:
    ledger = Ledger(10.0)
    ledger.plan(11.0, 70, begins=11.5, seconds=2.0, output_tokens=30, prompt="a1")
    assert ledger.to_json(20.0, detail=True)["calls"] == [
        {
            "at_s": 1.0,
            "input_tokens": 70,
            "begins_s": 1.5,
            "ends_s": 3.5,
            "output_tokens": 30,
            "prompt": "a1",
        }
    ]
