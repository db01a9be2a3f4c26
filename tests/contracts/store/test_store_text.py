"""Text that a database cannot hold survives: in JSON whole, in plain columns as U+FFFD."""

from typing import Any

import pytest

from promptmill.store import batches, control, jobs, ledger, results

NASTY = {
    "a zero character": "before\x00after",
    "a lone surrogate": "half a \ud83d smile",
    "both with all planes": "\x00 \udfff 中文 😀 \u2028 \"quotes\" \\u0000 'apostrophes' $.id",
    "other controls": "\x01\x1f\x7f\r\n\t",
}


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_prompts_and_inputs_come_back_as_they_were(world: Any, text: str) -> None:
    made = world.admitting(0, shared={"model": "m", "system": text}, tags={"note": text})
    new = world.new_job(0, body={"messages": [{"role": "user", "content": text}]}, source={text: text})
    with world.database.begin() as conn:
        jobs.insert_many(conn, made.id, [new], world.now)
    with world.database.read() as conn:
        [row] = results.iterate(conn, made.id)
        loaded = jobs.load(conn, [row.job_id])[row.job_id]
    assert loaded.prompt.body["system"] == text
    assert loaded.prompt.body["messages"][0]["content"] == text
    assert row.source == {text: text}
    assert world.row(made).tags == {"note": text}


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_an_answer_keeps_its_message_whole_and_its_text_readable(world: Any, text: str) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    answer = world.completion(lease, text, parsed={"value": text}, stop_reason=text)
    with world.database.begin() as conn:
        assert jobs.complete(conn, [answer], world.now) == {lease.job_id}
    [row] = _results(world, made)
    assert row.message == answer.message
    assert row.parsed == {"value": text}
    assert row.text == text.replace("\x00", "\ufffd").replace("\ud83d", "\ufffd").replace("\udfff", "\ufffd")


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_what_a_server_says_is_recorded_whatever_it_is(world: Any, text: str) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    closed = world.closed(
        lease,
        "server_failed",
        error_type=text,
        error_code=text,
        error_message=text,
        request_id=text,
        usage_raw={"note": text},
    )
    gone = jobs.Failure(job_id=lease.job_id, token=lease.token, attempt=closed, error_kind="server_failed")
    with world.database.begin() as conn:
        jobs.fail(conn, [gone], world.now)
        [attempt] = ledger.attempts_of(conn, job_id=lease.job_id)
    assert "\x00" not in attempt.error_message
    assert attempt.usage_raw == {"note": text}


def test_names_and_reasons_are_made_storable(world: Any) -> None:
    made = world.batch(1, name="evening\x00 \ud800")
    with world.database.begin() as conn:
        assert control.pause(conn, made.id, "why\x00", world.now).reason == "why\ufffd"
        assert batches.find(conn, "evening\x00 \ud800").id == made.id
    assert world.row(made).name == "evening\ufffd \ufffd"


def test_fields_of_an_answer_keep_their_order(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    message = {"zebra": 1, "ant": {"b": 1, "a": 2}}
    with world.database.begin() as conn:
        jobs.complete(conn, [world.completion(lease, message=message)], world.now)
    [row] = _results(world, made)
    assert str(row.message) == str(message)


def test_numbers_that_json_does_not_know_become_null(world: Any) -> None:
    made = world.admitting(0)
    new = world.new_job(0, source={"a": float("nan"), "b": [float("inf"), 1.5], "c": ({"d": -0.0},)})
    with world.database.begin() as conn:
        jobs.insert_many(conn, made.id, [new], world.now)
    [row] = _results(world, made)
    assert row.source == {"a": None, "b": [None, 1.5], "c": [{"d": 0.0}]}


def test_money_and_tokens_hold_the_largest_batch(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    huge = world.closed(lease, cost_nanos=9_000_000_000_000_000_000)
    with world.database.begin() as conn:
        jobs.complete(conn, [world.completion(lease, attempt=huge)], world.now)
    assert world.row(made).cost_nanos == 9_000_000_000_000_000_000
    world.assert_adds_up(made)


def _results(world: Any, made: Any) -> list[Any]:
    with world.database.read() as conn:
        return list(results.iterate(conn, made.id))
