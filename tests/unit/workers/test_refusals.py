"""Which messages never reach a task: a message is an id and a number, and anything more is refused unread."""

import json
from base64 import b64decode
from types import SimpleNamespace
from typing import Any

import pytest

from promptmill.broker import celery_app
from promptmill.message import Ticket, written
from promptmill.routes import ANSWER_TASK, RUN_DUE_TASK
from workers.refusals import LARGEST_BODY, Refusal, Refused, fault_of

KNOWN = {ANSWER_TASK, RUN_DUE_TASK, "celery.map", "elsewhere.task"}
NOTHING_FOLLOWS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def fault(
    *,
    headers: Any = None,
    args: Any = ("job_1", 7),
    by_keyword: Any = None,
    options: Any = None,
    body: Any = None,
    content_type: str = "application/json",
) -> Refusal | None:
    """Of a message of ours, with something changed."""
    if isinstance(headers, dict) or headers is None:
        headers = {"task": ANSWER_TASK, "id": "job_1", "retries": 0} | (headers or {})
    if body is None:
        body = json.dumps([args, by_keyword or {}, options or NOTHING_FOLLOWS])
    return fault_of(SimpleNamespace(headers=headers, body=body, content_type=content_type), KNOWN)


def test_our_own_messages_are_taken() -> None:
    entry = json.loads(written(Ticket("job_1", 7, "nightly", "claude-sonnet-5", 2)))
    message = SimpleNamespace(
        headers=entry["headers"],
        body=b64decode(entry["body"]),
        content_type=entry["content-type"],
    )
    assert fault_of(message, KNOWN) is None


def test_what_celery_itself_writes_is_taken() -> None:
    app = celery_app("redis://127.0.0.1:1/0")
    for name, args in ((ANSWER_TASK, ("job_1", 7)), (RUN_DUE_TASK, ("nightly",))):
        written_by_celery = app.amqp.as_task_v2("id", name, args=args, kwargs={})
        message = SimpleNamespace(
            headers=written_by_celery.headers,
            body=json.dumps(written_by_celery.body),
            content_type="application/json",
        )
        assert fault_of(message, KNOWN) is None


@pytest.mark.parametrize(
    "content_type",
    ["application/x-python-serialize", "application/x-yaml", "application/x-msgpack", "application/data", ""],
)
def test_only_json_is_read(content_type: str) -> None:
    assert fault(content_type=content_type) is Refusal.CONTENT_TYPE


@pytest.mark.parametrize(
    "name", ["os.system", "celery.map", "celery.chain", "", None, ["promptmill.answer"], 1]
)
def test_no_other_task_is_run(name: object) -> None:
    assert fault(headers={"task": name}) is Refusal.UNKNOWN_TASK


@pytest.mark.parametrize("task_id", [None, "", 7, {"$ne": 1}, "x" * 201])
def test_an_id_is_a_short_text(task_id: object) -> None:
    assert fault(headers={"id": task_id}) is Refusal.UNREADABLE


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["job_1"],
        ["job_1", 7, 7],
        ["job_1", "7"],
        ["job_1", True],
        ["job_1", 7.0],
        [["job_1"], 7],
        {"a": 1},
        None,
        ["x" * 201, 7],
    ],
)
def test_arguments_have_their_types(args: object) -> None:
    assert fault(args=args) is Refusal.WRONG_ARGUMENTS


def test_arguments_by_keyword_are_none_of_ours() -> None:
    assert fault(by_keyword={"dispatch": 8}) is Refusal.WRONG_ARGUMENTS


@pytest.mark.parametrize(
    "headers",
    [{"eta": "2036-01-01T00:00:00Z"}, {"expires": 1}, {"timelimit": [0.001, None]}, {"group": "g"}],
)
def test_a_message_cannot_say_when_or_for_how_long_a_job_runs(headers: dict[str, object]) -> None:
    assert fault(headers=headers) is Refusal.INSTRUCTIONS


@pytest.mark.parametrize("name", ["callbacks", "errbacks", "chain", "chord"])
def test_a_message_cannot_have_another_sent_when_its_job_ends(name: str) -> None:
    assert fault(options={**NOTHING_FOLLOWS, name: [{"task": "os.system"}]}) is Refusal.INSTRUCTIONS


@pytest.mark.parametrize("body", ["", "no json", b"\xff\xfe", "[" * 5_000, None, 7])
def test_a_body_that_cannot_be_read_is_refused(body: object) -> None:
    assert fault(body=body if body is not None else {}) is Refusal.UNREADABLE


def test_a_large_body_is_not_even_parsed() -> None:
    assert fault(body=" " * (LARGEST_BODY + 1)) is Refusal.TOO_LARGE


def test_headers_that_are_none_are_refused() -> None:
    assert fault(headers=[]) is Refusal.UNREADABLE


def test_what_was_counted_is_told_once() -> None:
    counts = Refused()
    counts.add(Refusal.TOO_LARGE)
    counts.add(Refusal.TOO_LARGE)
    assert counts.take() == {Refusal.TOO_LARGE: 2}
    assert counts.take() == {}
