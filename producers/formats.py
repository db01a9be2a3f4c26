"""How a Result is written: one pure function per line format.

`jsonl` holds everything we know; `anthropic` is the line of a Message Batches results file, so that scripts and
types made for those go on working; `csv` is for a spreadsheet, which must not run what a model wrote.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from producers.answers import Result
from promptmill.states import JobState
from promptmill.store.results import ResultError
from promptmill.usage import Usage

USAGE_COLUMNS = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
)
COLUMNS = (
    "custom_id",
    "job_id",
    "state",
    "text",
    "stop_reason",
    "parsed",
    *USAGE_COLUMNS,
    "cost_usd",
    "attempts",
    "error_kind",
    "error_message",
    "input",
    "simulated",
)

# What a spreadsheet takes for a formula, or for the end of a cell before one.
_FORMULA_STARTS = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "\N{FULLWIDTH EQUALS SIGN}",
    "\N{FULLWIDTH PLUS SIGN}",
)

_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}

# The API's word for what we call by kind, where the server itself did not say one.
_API_ERROR_TYPES: Mapping[str, str] = {
    "prompt_rejected": "invalid_request_error",
    "key_rejected": "authentication_error",
    "spend_cap_reached": "billing_error",
    "rate_limited": "rate_limit_error",
    "overloaded": "overloaded_error",
    "request_too_large": "request_too_large",
}


def json_line(result: Result) -> str:
    """Everything about a result as one line of JSON, without the line's end."""
    line: dict[str, Any] = {
        "custom_id": result.custom_id,
        "job_id": result.job_id,
        "state": result.state.value,
        "text": result.text,
        "message": result.message,
        "parsed": result.parsed,
        "usage": usage_words(result.usage),
        "cost_usd": money(result.cost),
        "attempts": result.attempts,
        "error": _error(result.error),
        "input": result.input,
    }
    if result.simulated:
        line["simulated"] = True
    return _dumps(line)


def anthropic_line(result: Result) -> str | None:
    """The line of a Message Batches results file; None for a job that has not ended, which has no line there."""
    match result.state:
        case JobState.SUCCEEDED:
            outcome: dict[str, Any] = {"type": "succeeded", "message": result.message}
        case JobState.ERRORED:
            outcome = {"type": "errored", "error": _api_error(result.error)}
        case JobState.CANCELED | JobState.EXPIRED:
            outcome = {"type": result.state.value}
        case _:
            return None
    return _dumps({"custom_id": result.custom_id, "result": outcome}, compact=True)


def row(result: Result) -> dict[str, Any]:
    """A flat row under `COLUMNS`, with plain values: for Parquet, and through `cells` for CSV."""
    error = result.error
    message = result.message or {}
    return {
        "custom_id": result.custom_id,
        "job_id": result.job_id,
        "state": result.state.value,
        "text": result.text,
        "stop_reason": message.get("stop_reason"),
        "parsed": None if result.parsed is None else _dumps(result.parsed),
        **usage_words(result.usage),
        "cost_usd": money(result.cost),
        "attempts": result.attempts,
        "error_kind": error and error.kind,
        "error_message": error and error.message,
        "input": None if result.input is None else _dumps(result.input),
        "simulated": result.simulated,
    }


def cells(result: Result) -> list[str]:
    """The row as text for a spreadsheet: what would be read as a formula begins with an apostrophe."""
    return [_cell(value) for value in row(result).values()]


def usage_words(usage: Usage) -> dict[str, int]:
    """Token counts under the names the API uses."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
    }


def money(amount: Decimal | None) -> str | None:
    """Dollars with nine decimals, exact; None when unknown."""
    return None if amount is None else f"{amount:.9f}"


def _error(error: ResultError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {
        "kind": error.kind,
        "status": error.status,
        "type": error.type,
        "code": error.code,
        "message": error.message,
        "request_id": error.request_id,
        "advice": error.advice,
    }


def _api_error(error: ResultError | None) -> dict[str, Any]:
    """The two levels of `error` that the API nests: `result.error.error.type`."""
    kind = error.kind if error else "failed"
    inner = {
        "type": (error and error.type) or _API_ERROR_TYPES.get(kind, "api_error"),
        "message": (error and error.message) or kind.replace("_", " "),
    }
    return {"type": "error", "error": inner, "request_id": error and error.request_id}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return f"'{value}" if value.startswith(_FORMULA_STARTS) else value


def _dumps(value: Any, *, compact: bool = False) -> str:
    """JSON with the characters as they are, on one line for every reader.

    Escaped are the characters at which some readers end a line, and a text that UTF-8 cannot hold.
    """
    text = _compact(value) if compact else _spaced(value)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":") if compact else None)
    return text.translate(_LINE_ENDS)


# Made once: `json.dumps` makes an encoder at every call.
_spaced = json.JSONEncoder(ensure_ascii=False).encode
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
