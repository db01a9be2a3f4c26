"""One table: what the server said, and which of our errors it is."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from promptmill.claude import failures
from promptmill.dimensions import Dimension, Headroom
from promptmill.errors import (
    ClaudeError,
    ConnectionFailed,
    KeyRejected,
    Overloaded,
    PromptRejected,
    RateLimited,
    ServerFailed,
    SpendCapReached,
)
from promptmill.usage import Usage

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HTML = "<html><head><title>Bad gateway</title></head><body>the whole prompt</body></html>"


def body(kind: str, message: str = "m", code: str | None = None) -> str:
    error: dict[str, Any] = {"type": kind, "message": message}
    if code is not None:
        error["details"] = {"error_code": code}
    return json.dumps({"type": "error", "error": error, "request_id": "req_body"})


def failure(status: int, text: str, **headers: str) -> ClaudeError:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return failures.from_response(status, names, text, now=NOW)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, body("invalid_request_error"), PromptRejected),
        (404, body("not_found_error"), PromptRejected),
        (413, body("request_too_large"), PromptRejected),
        (422, body("invalid_request_error"), PromptRejected),
        (401, body("authentication_error"), KeyRejected),
        (403, body("permission_error"), KeyRejected),
        (402, body("billing_error"), SpendCapReached),
        (429, body("rate_limit_error", code="enforced_spend_limit_reached"), SpendCapReached),
        (429, body("rate_limit_error", code="contract_spend_limit_reached"), SpendCapReached),
        (400, body("invalid_request_error", code="organization_on_hold"), SpendCapReached),
        (
            400,
            body("invalid_request_error", "You have reached your specified API usage limits. You"),
            SpendCapReached,
        ),
        (
            400,
            body("invalid_request_error", "You have reached your specified workspace API usage limits"),
            SpendCapReached,
        ),
        (
            400,
            body("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
            SpendCapReached,
        ),
        (400, body("invalid_request_error", "This organization has been disabled."), SpendCapReached),
        (
            400,
            body("invalid_request_error", "messages.0: You have reached your specified API usage limits"),
            PromptRejected,
        ),
        (429, body("rate_limit_error"), RateLimited),
        (429, body("rate_limit_error", code="ramp_limit_exceeded"), RateLimited),
        (529, body("overloaded_error"), Overloaded),
        (529, body("overloaded_error", code="compaction_unavailable"), Overloaded),
        (503, body("api_error"), Overloaded),
        (500, body("overloaded_error"), Overloaded),
        (500, body("api_error"), ServerFailed),
        (502, body("api_error"), ServerFailed),
        (504, body("timeout_error"), ServerFailed),
        (408, body("timeout_error"), ServerFailed),
        (409, body("conflict_error"), ServerFailed),
        (418, body("a_new_error"), PromptRejected),
        (599, body("a_new_error"), ServerFailed),
    ],
)
def test_the_api_says_what_is_at_fault(status: int, text: str, kind: type[ClaudeError]) -> None:
    failed = failure(status, text)
    assert type(failed) is kind
    assert failed.status == status
    assert failed.error_type == json.loads(text)["error"]["type"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, KeyRejected),
        (403, KeyRejected),
        (413, PromptRejected),
        (429, RateLimited),
        (500, ServerFailed),
        (502, ServerFailed),
        (503, Overloaded),
        (504, ServerFailed),
        (522, ServerFailed),
        (529, Overloaded),
        (404, ConnectionFailed),
        (405, ConnectionFailed),
        (407, ConnectionFailed),
        (301, ConnectionFailed),
        (204, ConnectionFailed),
    ],
)
@pytest.mark.parametrize(
    "text", [HTML, "", "[]", '"x"', '{"detail": "Not Found"}', '{"error": "x"}', "[" * 10**5]
)
def test_a_proxy_is_understood_by_its_status_alone(status: int, kind: type[ClaudeError], text: str) -> None:
    failed = failure(status, text, request_id="req_1")
    assert type(failed) is kind
    assert (failed.status, failed.error_type, failed.request_id) == (status, None, "req_1")
    assert "whole prompt" not in str(failed)


def test_a_page_in_the_way_is_named_by_its_title() -> None:
    assert str(failure(502, HTML)) == '502 Bad Gateway, not in the words of the Claude API ("Bad gateway")'


def test_a_wrong_address_names_the_setting() -> None:
    assert "ANTHROPIC_BASE_URL" in str(failure(404, "<html>"))


def test_every_failure_carries_the_facts() -> None:
    failed = failure(
        429,
        body("rate_limit_error", "Rate limited", "some_code"),
        request_id="req_header",
        retry_after="7",
        anthropic_ratelimit_requests_limit="50",
        anthropic_ratelimit_requests_remaining="0",
    )
    assert isinstance(failed, RateLimited)
    assert str(failed) == "429 rate_limit_error: Rate limited"
    assert (failed.error_code, failed.request_id, failed.retry_after) == ("some_code", "req_header", 7.0)
    assert failed.headroom == Headroom(requests_limit=50, requests_remaining=0)
    assert failed.dimension is Dimension.REQUESTS


@pytest.mark.parametrize(
    ("status", "kind"), [(429, "rate_limit_error"), (500, "api_error"), (529, "overloaded_error")]
)
def test_whatever_is_refused_for_a_while_says_for_how_long(status: int, kind: str) -> None:
    assert failure(status, body(kind), retry_after="7").retry_after == 7.0


def test_a_type_and_a_code_of_any_length_are_cut_short() -> None:
    failed = failure(400, body("t" * 6_000, "Not so", "c" * 6_000))

    assert (failed.error_type, failed.error_code) == ("t" * 100, "c" * 100)
    assert str(failed).endswith(": Not so")


def test_the_request_id_of_the_body_is_second_best() -> None:
    assert failure(500, body("api_error")).request_id == "req_body"


@pytest.mark.parametrize(
    ("message", "dimension"),
    [
        (
            "would exceed your organization's rate limit of 30,000 input tokens per minute",
            Dimension.INPUT_TOKENS,
        ),
        ("would exceed the rate limit of 8,000 Output Tokens per minute", Dimension.OUTPUT_TOKENS),
        ("Number of requests per minute has exceeded", Dimension.REQUESTS),
        ("would exceed your account's rate limit", None),
    ],
)
def test_a_429_names_its_dimension_in_words(message: str, dimension: Dimension | None) -> None:
    failed = failure(429, body("rate_limit_error", message))
    assert isinstance(failed, RateLimited)
    assert failed.dimension is dimension


def test_a_429_names_its_dimension_by_the_header_that_is_at_zero() -> None:
    left = {"anthropic_ratelimit_requests_remaining": "9", "anthropic_ratelimit_output_tokens_remaining": "0"}
    failed = failure(429, body("rate_limit_error", "Rate limited"), **left)
    assert isinstance(failed, RateLimited)
    assert failed.dimension is Dimension.OUTPUT_TOKENS


def test_a_ramp_limit_says_nothing_about_a_dimension() -> None:
    failed = failure(
        429,
        body("rate_limit_error", "of input tokens per minute", "ramp_limit_exceeded"),
        retry_after="3",
        anthropic_ratelimit_requests_remaining="0",
    )
    assert isinstance(failed, RateLimited)
    assert (failed.ramp, failed.dimension, failed.retry_after) == (True, None, 3.0)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("overloaded_error", Overloaded),
        ("api_error", ServerFailed),
        ("timeout_error", ServerFailed),
        ("rate_limit_error", RateLimited),
        ("invalid_request_error", PromptRejected),
        ("not_found_error", PromptRejected),
        ("request_too_large", PromptRejected),
        ("authentication_error", KeyRejected),
        ("permission_error", KeyRejected),
        ("billing_error", SpendCapReached),
        ("a_new_error", ServerFailed),
    ],
)
def test_an_error_inside_a_stream_is_known_by_its_type(kind: str, error: type[ClaudeError]) -> None:
    used = Usage(input_tokens=3, output_tokens=1)
    failed = failures.from_event(json.loads(body(kind)), {"request-id": "req_1"}, usage=used)
    assert type(failed) is error
    assert (failed.status, failed.usage, failed.request_id) == (200, used, "req_1")


@pytest.mark.parametrize("event", [{}, {"error": None}, {"error": {"type": 7, "details": []}}])
def test_an_error_event_of_any_shape_is_a_failure_of_theirs(event: dict[str, Any]) -> None:
    assert type(failures.from_event(event, {}, usage=None)) is ServerFailed


def test_a_spend_cap_inside_a_stream_is_one() -> None:
    event = json.loads(body("rate_limit_error", code="enforced_spend_limit_reached"))
    assert type(failures.from_event(event, {}, usage=None)) is SpendCapReached


LIMIT = "You have reached your specified API usage limits."


@pytest.mark.parametrize(
    ("status", "message", "code", "lifts"),
    [
        (400, f"{LIMIT} You will regain access on 2026-12-01 at 00:00 UTC.", None, "2026-12-01T00:00Z"),
        (400, f"{LIMIT} You will regain access on 2027-01-15 at 08:30 UTC.", None, "2027-01-15T08:30Z"),
        (400, f"{LIMIT} You will regain access on 2026-99-99.", None, None),
        (400, f"{LIMIT} Access returns on the first day of next month.", None, "2026-12-01T00:00Z"),
        (400, LIMIT, None, None),
        (429, "Spend limit.", "enforced_spend_limit_reached", "2026-12-01T00:00Z"),
        (429, "Spend limit.", "contract_spend_limit_reached", None),
        (402, "Your payment method has a problem.", None, None),
    ],
)
def test_a_spend_cap_says_when_it_lifts(status: int, message: str, code: str | None, lifts: str) -> None:
    now = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
    error = failures.from_response(status, {}, body("error", message, code), now=now)
    assert isinstance(error, SpendCapReached)
    assert error.lifts_at == (datetime.fromisoformat(lifts) if lifts else None)


def test_the_month_after_december_is_january() -> None:
    now = datetime(2026, 12, 31, 12, tzinfo=UTC)
    text = body("rate_limit_error", code="enforced_spend_limit_reached")
    error = failures.from_response(429, {}, text, now=now)
    assert isinstance(error, SpendCapReached)
    assert error.lifts_at == datetime(2027, 1, 1, tzinfo=UTC)


def test_messages_are_cut() -> None:
    assert len(str(failure(400, body("invalid_request_error", "x" * 10_000)))) == failures.LONGEST_MESSAGE


@pytest.mark.parametrize(
    "text", ["invalid x-api-key sk-ant-api03-SECRET-x_y", "cannot reach 'http://user:SECRET@proxy:1/'"]
)
def test_messages_hold_no_credentials(text: str) -> None:
    assert "SECRET" not in str(failure(401, body("authentication_error", text)))
    assert "SECRET" not in failures.clean(text)


def test_the_cause_of_a_broken_exchange_is_named_without_its_wrapper() -> None:
    wrapper = RuntimeError("wrapper")
    wrapper.__cause__ = ConnectionResetError("peer")
    assert failures.cause_of(wrapper) == "ConnectionResetError: peer"
    failed = failures.no_answer(failures.cause_of(wrapper), usage=Usage(input_tokens=1))
    assert str(failed) == "no complete answer: ConnectionResetError: peer"
    assert (failed.status, failed.usage) == (None, Usage(input_tokens=1))


def test_a_parser_that_quotes_the_answer_is_not_quoted() -> None:
    wrapper = RuntimeError("wrapper")
    wrapper.__cause__ = ValueError("Invalid character in chunk size: b'the answer'")
    assert failures.cause_of(wrapper) == "ValueError"
