"""Headers are read where they can be, and are missing where they cannot."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmill.claude.headers import LONGEST_WAIT, exhausted, read_headroom, read_retry_after
from promptmill.dimensions import Dimension, Headroom

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def test_every_header_of_the_family_is_read() -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "1000",
        "anthropic-ratelimit-requests-remaining": "999",
        "anthropic-ratelimit-requests-reset": "2026-11-22T19:30:15Z",
        "anthropic-ratelimit-input-tokens-limit": "2000000",
        "anthropic-ratelimit-input-tokens-remaining": "1998000",
        "anthropic-ratelimit-output-tokens-limit": "400000",
        "anthropic-ratelimit-output-tokens-remaining": "0",
        "anthropic-ratelimit-tokens-limit": "2400000",
    }
    headroom = read_headroom(headers)
    assert headroom == Headroom(1000, 999, 2_000_000, 1_998_000, 400_000, 0)
    assert exhausted(headroom) is Dimension.OUTPUT_TOKENS


def test_in_fast_mode_its_own_token_limits_hold() -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "1000",
        "anthropic-ratelimit-input-tokens-limit": "2000000",
        "anthropic-fast-input-tokens-limit": "100000",
        "anthropic-fast-input-tokens-remaining": "99000",
    }
    told = Headroom(requests_limit=1000, input_tokens_limit=100_000, input_tokens_remaining=99_000)
    assert read_headroom(headers) == told


@pytest.mark.parametrize(
    ("tokens", "input_limit"),
    [
        (540_000, 450_000),  # both limits together: there is no workspace's
        (450_000, 450_000),
        (200_000, 200_000),  # a workspace's, of input or of both
        (90_000, 450_000),  # it may be of output: nobody can tell
        (50_000, 450_000),
    ],
)
def test_a_workspaces_lower_token_limit_stands_for_input(tokens: int, input_limit: int) -> None:
    family = {
        "input-tokens-limit": 450_000,
        "input-tokens-remaining": 440_000,
        "output-tokens-limit": 90_000,
        "output-tokens-remaining": 80_000,
        "tokens-limit": tokens,
        "tokens-remaining": 12_000,
    }
    headroom = read_headroom({f"anthropic-ratelimit-{name}": str(value) for name, value in family.items()})
    assert headroom is not None
    assert headroom.input_tokens_limit == input_limit
    assert headroom.input_tokens_remaining == (12_000 if input_limit == 200_000 else 440_000)
    assert (headroom.output_tokens_limit, headroom.output_tokens_remaining) == (90_000, 80_000)


def test_no_headers_is_no_headroom() -> None:
    assert read_headroom({"content-type": "application/json"}) is None
    assert exhausted(None) is None


def test_a_part_of_the_headers_is_a_part_of_the_headroom() -> None:
    assert read_headroom({"anthropic-ratelimit-requests-remaining": "3"}) == Headroom(requests_remaining=3)


@pytest.mark.parametrize("junk", ["", "many", "-1", "nan", "inf", "1e999", "1,000", "\ud800"])
def test_junk_is_missing(junk: str) -> None:
    assert read_headroom({"anthropic-ratelimit-requests-limit": junk}) is None


def test_a_limit_of_zero_is_missing_because_zero_means_no_limit_elsewhere() -> None:
    assert read_headroom({"anthropic-ratelimit-requests-limit": "0"}) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT", "date": "Sun, 22 Nov 2026 12:00:10 GMT"}, 20.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 -0000"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "99999999999999"}, LONGEST_WAIT),
        ({"retry-after": "Sun, 22 Nov 9999 11:00:00 GMT"}, LONGEST_WAIT),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_the_wait_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers, now=NOW) == seconds


@given(st.text(), st.text())
def test_no_header_breaks_the_reader(text: str, date: str) -> None:
    wait = read_retry_after({"retry-after": text, "retry-after-ms": text, "date": date}, now=NOW)
    assert wait is None or 0 <= wait <= LONGEST_WAIT
    read_headroom(
        {"anthropic-ratelimit-requests-limit": text, "anthropic-ratelimit-requests-remaining": date}
    )
