"""How a result is written, format by format."""

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from anthropic.types.messages import MessageBatchIndividualResponse

from producers.answers import Result
from producers.formats import COLUMNS, anthropic_line, cells, json_line, row
from promptmill.states import JobState
from promptmill.store.results import ResultError
from promptmill.usage import Usage

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-5-5",
    "content": [{"type": "text", "text": "你好"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
ANSWERED = Result(
    custom_id="a",
    job_id="job_1",
    state=JobState.SUCCEEDED,
    text="你好",
    message=MESSAGE,
    parsed=None,
    usage=Usage(input_tokens=3, output_tokens=2, cache_read_tokens=7),
    cost=Decimal(1300).scaleb(-9),
    attempts=1,
    error=None,
    input={"prompt": "hello"},
    simulated=False,
)
REFUSED = replace(
    ANSWERED,
    state=JobState.ERRORED,
    text=None,
    message=None,
    cost=Decimal(0),
    error=ResultError(
        kind="prompt_rejected",
        status=400,
        type="invalid_request_error",
        code=None,
        message="prompt is too long",
        request_id="req_1",
    ),
)


def test_a_json_line_holds_everything_in_the_documented_order() -> None:
    line = json.loads(json_line(ANSWERED))

    assert list(line) == [
        "custom_id", "job_id", "state", "text", "message", "parsed", "usage", "cost_usd", "attempts", "error",
        "input",
    ]  # fmt: skip
    assert line["message"] == MESSAGE
    assert line["cost_usd"] == "0.000001300"
    assert line["usage"]["cache_read_input_tokens"] == 7


def test_a_simulated_answer_says_so() -> None:
    assert json.loads(json_line(replace(ANSWERED, simulated=True)))["simulated"] is True


def test_an_unknown_cost_is_null_and_not_zero() -> None:
    assert json.loads(json_line(replace(ANSWERED, cost=None)))["cost_usd"] is None


@pytest.mark.parametrize(
    "text", ["a\u2028b", "a\u2029b", "a\x85b", "a\nb", "lone \ud800 surrogate", "nul \x00"]
)
def test_a_line_is_one_line_of_utf_8_for_every_reader(text: str) -> None:
    line = json_line(replace(ANSWERED, text=text))

    assert len(line.splitlines()) == 1
    assert json.loads(line.encode())["text"] == text


def test_an_answer_is_the_line_of_a_message_batches_file() -> None:
    line = anthropic_line(ANSWERED)

    assert line is not None
    expected = {"custom_id": "a", "result": {"type": "succeeded", "message": MESSAGE}}
    assert line == json.dumps(expected, ensure_ascii=False, separators=(",", ":"))
    assert MessageBatchIndividualResponse.model_validate_json(line).result.type == "succeeded"


def test_an_error_nests_two_levels_as_the_api_does() -> None:
    line = anthropic_line(REFUSED)

    assert line is not None
    parsed = MessageBatchIndividualResponse.model_validate_json(line)
    assert parsed.result.type == "errored"
    assert parsed.result.error.error.type == "invalid_request_error"
    assert parsed.result.error.error.message == "prompt is too long"
    assert parsed.result.error.request_id == "req_1"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("rate_limited", "rate_limit_error"),
        ("overloaded", "overloaded_error"),
        ("connection_failed", "api_error"),
    ],
)
def test_a_failure_without_a_word_of_the_servers_gets_the_apis_word(kind: str, expected: str) -> None:
    error = ResultError(kind=kind, status=None, type=None, code=None, message=None, request_id=None)
    line = anthropic_line(replace(REFUSED, error=error))

    assert line is not None
    assert MessageBatchIndividualResponse.model_validate_json(line).result.error.error.type == expected


@pytest.mark.parametrize("state", [JobState.CANCELED, JobState.EXPIRED])
def test_canceled_and_expired_carry_nothing_more(state: JobState) -> None:
    line = anthropic_line(replace(REFUSED, state=state))

    assert line is not None
    assert json.loads(line)["result"] == {"type": state.value}
    MessageBatchIndividualResponse.model_validate_json(line)


def test_a_job_that_has_not_ended_has_no_line_there() -> None:
    assert anthropic_line(replace(REFUSED, state=JobState.PENDING)) is None


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_a_spreadsheet_runs_nothing_that_a_model_wrote(text: str) -> None:
    cell = dict(zip(COLUMNS, cells(replace(ANSWERED, text=text)), strict=True))["text"]

    assert cell == f"'{text}"


def test_a_flat_row_has_the_columns_in_their_order() -> None:
    assert tuple(row(ANSWERED)) == COLUMNS
    assert row(REFUSED)["error_kind"] == "prompt_rejected"
    assert row(ANSWERED)["stop_reason"] == "end_turn"
