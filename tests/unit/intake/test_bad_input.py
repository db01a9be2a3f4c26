"""Every fault of an input names its file, line and field; nothing is guessed, nothing is dropped."""

import gzip
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from promptmill.clock import ManualClock
from promptmill.errors import InvalidInput
from promptmill.intake.admit import survey
from promptmill.intake.faults import Faults, InvalidRows
from promptmill.intake.options import SubmitOptions
from promptmill.intake.survey import Survey
from promptmill.prompts import Prompt
from promptmill.states import Lane

NOW = datetime(2026, 11, 22, tzinfo=UTC)
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def read(source: object, **options: Any) -> Survey:
    given = SubmitOptions(**{"model": "claude-sonnet-5", **options})
    return survey(source, given, simulated=True, clock=ManualClock(NOW))


def fault_of(source: object, **options: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        read(source, **options)
    return caught.value


def place_of(fault: InvalidInput) -> tuple[object, int | None, str | None]:
    return fault.file, fault.line, fault.field


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: object, name: str = "in.jsonl", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_bytes("".join(f"{text}\n" for text in texts).encode(encoding))
        return path

    return write


# --- the source as a whole


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    fault = fault_of(tmp_path / "absent.jsonl")
    assert fault.file == tmp_path / "absent.jsonl"
    assert str(fault).endswith("absent.jsonl: there is no such file")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "a folder" in str(fault_of(tmp_path))


@pytest.mark.parametrize("text", ["", "\n\n\n"])
@pytest.mark.parametrize("name", ["in.jsonl", "in.csv", "in.tsv", "in.jsonl.gz"])
def test_an_empty_file_holds_no_row(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    fault = fault_of(path)
    assert place_of(fault) == (path, None, None)
    assert "there is no row in it" in str(fault)


def test_a_byte_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n{"prompt": "caf\xe9"}\n')
    fault = fault_of(path)
    assert place_of(fault) == (path, 2, None)
    assert "not UTF-8: byte 16 of the line is 0xe9" in str(fault)


def test_a_byte_of_a_csv_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"prompt\n" + b"fine\n" * 5_000 + b"caf\xe9\n")
    fault = fault_of(path)
    assert place_of(fault) == (path, 5_002, None)
    assert "byte 4 of the line is 0xe9" in str(fault)


def test_utf16_is_recognised(write: Callable[..., Path]) -> None:
    assert "UTF-16" in str(fault_of(write({"prompt": "a"}, encoding="utf-16")))


def test_a_json_array_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text('[\n  {"prompt": "a"}\n]\n')
    assert "a JSON array; write one object a line" in str(fault_of(path))


def test_a_cut_gzip_file_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"prompt": "%d"}\n' % n for n in range(20_000)))
    path.write_bytes(whole[: len(whole) // 2])
    assert "not a whole gzip file" in str(fault_of(path))


def test_what_is_no_gzip_file_is_recognised(write: Callable[..., Path]) -> None:
    assert "not a whole gzip file" in str(fault_of(write({"prompt": "a"}, name="in.jsonl.gz")))


@pytest.mark.parametrize("source", [{"prompt": "a"}, b"bytes", 7, None])
def test_what_is_no_source_of_rows_is_refused(source: object) -> None:
    assert "no iterable of rows" in str(fault_of(source))


# --- single lines


def test_a_broken_line_names_its_column(write: Callable[..., Path]) -> None:
    path = write({"prompt": "a"}, '{"prompt": "b",}', {"prompt": "c"})
    fault = fault_of(path)
    assert place_of(fault) == (path, 2, None)
    assert "not JSON: Illegal trailing comma before end of object (column 15)" in str(
        fault
    ) or "column" in str(fault)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", " \t\n", '\n{"prompt": "c"}\n'])
def test_what_a_line_lacks_at_its_end_is_missed_there(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n{"prompt": "b"' + ending.encode())
    fault = fault_of(path)
    assert place_of(fault) == (path, 2, None)
    assert "not JSON: Expecting ',' delimiter (column 15)" in str(fault)


@pytest.mark.parametrize(
    ("line", "field", "why"),
    [
        ('{"prompt": "a", "score": NaN}', "score", "nan is not a value that JSON can hold"),
        ('{"prompt": "a", "deep": {"list": [1, -Infinity]}}', "deep.list[1]", "-inf is not"),
        ("[1, 2]", None, "not an object"),
        ("null", None, "not an object"),
        ('{"question": "a"}', "prompt", "neither `prompt` nor `messages`"),
        ('{"prompt": ""}', "prompt", "is empty"),
        ('{"prompt": "  "}', "prompt", "is empty"),
        ('{"prompt": 7}', "prompt", "neither text nor a list of blocks"),
        ('{"prompt": "a", "custom_id": "with space"}', "custom_id", "must be 1 to 64 of"),
        ('{"prompt": "a", "custom_id": "ümlaut"}', "custom_id", "must be 1 to 64 of"),
        ('{"prompt": "a", "custom_id": "%s"}' % ("x" * 65), "custom_id", "must be 1 to 64 of"),
        ('{"prompt": "a", "custom_id": ["x"]}', "custom_id", "must be 1 to 64 of"),
        ('{"prompt": "a", "custom_id": 1.5}', "custom_id", "must be 1 to 64 of"),
        ('{"prompt": "a", "custom_id": 1e999}', "custom_id", "must be 1 to 64 of"),
        ('{"prompt": "a", "model": "claude-sonet-5"}', "model", "did you mean claude-sonnet-5"),
        ('{"prompt": "a", "model": "gpt-4o"}', "model", "unknown model 'gpt-4o'"),
        ('{"prompt": "a", "model": 5}', "model", "not text"),
        ('{"prompt": "a", "model": "claude-3-opus-20240229"}', "model", "was retired on 2026-01-05"),
        ('{"prompt": "a", "max_tokens": "many"}', "max_tokens", "must be a whole number"),
        ('{"prompt": "a", "max_tokens": -1}', "max_tokens", "must be a whole number"),
        ('{"prompt": "a", "max_tokens": true}', "max_tokens", "must be a whole number"),
        ('{"prompt": "a", "speed": "f\\ud800"}', "speed", "characters that no word has"),
        ('{"prompt": "a", "inference_geo": "\\udfff"}', "inference_geo", "characters that no word has"),
        ('{"prompt": "a", "speed": ["fast"]}', "speed", "not text"),
        (
            '{"prompt": "a", "max_tokens": 128001}',
            "max_tokens",
            "128,001 is above the 128,000 of claude-sonnet-5",
        ),
        ('{"prompt": "a", "temperature": 1}', "temperature", "removed in API version 2026-10-21"),
        ('{"prompt": "a", "system": 5}', "system", "neither text nor a list of blocks"),
        ('{"prompt": "a", "stream": true}', "stream", "leave it out"),
        ('{"messages": []}', "messages", "at least one message"),
        ('{"messages": "a"}', "messages", "must be a list"),
        ('{"messages": [7]}', "messages[0]", "not an object"),
        (
            '{"messages": [{"role": "bot", "content": "a"}]}',
            "messages[0].role",
            "must be user, assistant or system",
        ),
        ('{"messages": [{"role": "user", "content": ""}]}', "messages[0].content", "is empty"),
        ('{"messages": [{"role": "user"}]}', "messages[0].content", "neither text nor"),
        ('{"custom_id": "a", "params": {"max_tokens": 5}}', "messages", "missing"),
        ('{"custom_id": "a", "params": {"messages": [], "top_p": 1}}', "top_p", "removed in API version"),
        ('{"prompt": "a", "temprature": 1}', "temprature", "no such field; did you mean temperature?"),
        ('{"messages": [], "max_token": 5}', "max_token", "did you mean max_tokens?"),
        ('{"promt": "a"}', "promt", "did you mean prompt?"),
        ('{"custom_id": "a", "params": {"max_token": 5}}', "max_token", "did you mean max_tokens?"),
        ('{"prompt": "a", "messages": []}', "prompt", "stands beside `messages`"),
        ('{"prompt": "a", "custom_id": "a", "params": {}}', "prompt", "stands beside `params`"),
        ('{"prompt": "a", "params": {"max_tokens": 5}}', "prompt", "stands beside `params`"),
        ('{"max_tokens": 5, "custom_id": "a", "params": {}}', "max_tokens", "put it into them"),
        ('{"max_token": 5, "custom_id": "a", "params": {}}', "max_token", "did you mean max_tokens?"),
        ('{"prompt": "a", "custom_id": "a", "body": {}, "url": "/"}', "prompt", "stands beside `body`"),
    ],
)
def test_a_fault_names_line_and_field(
    write: Callable[..., Path], line: str, field: str | None, why: str
) -> None:
    path = write({"prompt": "fine"}, line)
    fault = fault_of(path)
    assert place_of(fault) == (path, 2, field)
    assert why in str(fault)


def test_a_slip_in_a_field_says_what_to_do_with_data_of_ones_own() -> None:
    assert str(fault_of([{"custom_id": "e1", "prompt": "x", "systm": "be brief"}])).endswith(
        "line 1, field systm: there is no such field; did you mean system? "
        "(call data of your own something less alike)"
    )


def test_all_slips_of_a_row_are_named_at_once() -> None:
    row = {"prompt": "x", "temprature": 1, "max_token": 5, "systm": "be brief"}
    assert fault_of([row]).why.endswith(
        "did you mean temperature? "
        "(also max_token: max_tokens, systm: system; call data of your own something less alike)"
    )


def test_a_slip_in_the_fields_for_all_rows_is_said_before_they_are_read() -> None:
    fault = fault_of([], params={"max_token": 5})
    assert (fault.field, fault.why) == ("max_token", "there is no such field; did you mean max_tokens?")


def test_a_slip_in_a_prompt_from_python_is_a_fault_as_well() -> None:
    assert fault_of([Prompt({**HELLO, "systm": "be brief"})]).field == "systm"


def test_a_model_must_come_from_somewhere(write: Callable[..., Path]) -> None:
    fault = fault_of(write({"prompt": "a"}), model=None)
    assert (fault.line, fault.field) == (1, "model")
    assert "--model" in str(fault)


def test_a_number_of_thousands_of_digits_is_refused(write: Callable[..., Path]) -> None:
    assert fault_of(write('{"prompt": "a", "n": %s}' % ("9" * 5_000))).line == 1


def test_a_line_nested_beyond_reason_is_refused(write: Callable[..., Path]) -> None:
    deep = '{"prompt": "a", "x": ' + "[" * 200_000 + "]" * 200_000 + "}"
    assert fault_of(write(deep)).line == 1


def test_a_prompt_over_the_window_of_its_model_is_refused_with_figures(write: Callable[..., Path]) -> None:
    path = write({"prompt": "fine"}, {"prompt": "word " * 400_000})
    fault = fault_of(path, model="claude-haiku-4-5")
    assert place_of(fault) == (path, 2, "messages")
    assert "tokens; claude-haiku-4-5-20251001 reads 200,000 at most" in str(fault)


def test_the_system_prompt_counts_towards_the_window(write: Callable[..., Path]) -> None:
    assert "at most" in str(
        fault_of(write({"prompt": "a"}), model="claude-haiku-4-5", system="word " * 400_000)
    )


def test_sampling_is_accepted_where_the_older_api_version_is_pinned(write: Callable[..., Path]) -> None:
    path = write({"prompt": "a", "temperature": 0, "model": "claude-haiku-4-5"})
    assert read(path, api_version="2023-06-01").jobs == 1


@pytest.mark.parametrize("fields", [{"speed": "fast"}, {"max_tokens": 0}, {"fallbacks": "default"}])
def test_what_a_message_batch_cannot_carry_is_refused_in_the_bulk_lane(
    write: Callable[..., Path], fields: dict[str, object]
) -> None:
    path = write({"custom_id": "a", "params": HELLO | fields})
    assert fault_of(path, lane=Lane.BULK).field == next(iter(fields))
    assert read(path).jobs == 1


# --- custom_id


def test_a_duplicate_names_both_lines(write: Callable[..., Path]) -> None:
    path = write(*({"custom_id": name, "prompt": "a"} for name in ("x", "y", "x", "z", "x")))
    fault = fault_of(path)
    assert isinstance(fault, InvalidRows)
    assert [(f.line, f.field, f.why) for f in fault.faults] == [
        (3, "custom_id", "the same as on line 1"),
        (5, "custom_id", "the same as on line 1"),
    ]


def test_equal_rows_without_a_name_are_no_duplicates(write: Callable[..., Path]) -> None:
    assert read(write({"prompt": "a"}, {"prompt": "a"}, {"prompt": "a"})).jobs == 3


# --- all faults at once


def test_the_first_twenty_faults_are_listed_and_all_are_counted(write: Callable[..., Path]) -> None:
    lines = [{"custom_id": "same", "prompt": "a"}, {"custom_id": "same", "prompt": "a"}]
    fault = fault_of(write(*lines, *["{"] * 30, {"prompt": "fine"}))
    assert isinstance(fault, InvalidRows)
    assert fault.count == 31
    assert [kept.line for kept in fault.faults] == list(range(2, 22))
    assert str(fault).startswith("31 faults, so nothing was submitted:\n")
    assert str(fault).endswith("\n  … and 11 more")

    many = str(InvalidRows(fault.faults, 5000))
    assert many.startswith("5,000 faults, so")
    assert many.endswith("… and 4,980 more")


def test_a_source_that_breaks_off_lists_what_was_found_before(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('prompt,model\nfine,claude-sonnet-5\nx,gpt-4o\n"never closed,claude-sonnet-5\n')
    fault = fault_of(path)
    assert isinstance(fault, InvalidRows)
    assert [(kept.line, kept.field) for kept in fault.faults] == [(3, "model"), (4, None)]


def test_faulty_rows_are_left_out_when_asked(write: Callable[..., Path]) -> None:
    path = write(
        {"custom_id": "x", "prompt": "a"},
        "{",
        {"custom_id": "x", "prompt": "b"},
        {"prompt": ""},
        {"prompt": "c"},
    )
    found = read(path, skip_invalid=True)
    assert found.jobs == 2
    assert found.skipped_count == 3
    assert [fault.line for fault in found.skipped] == [2, 3, 4]


def test_a_file_of_faults_only_is_an_error_even_when_they_are_skipped(write: Callable[..., Path]) -> None:
    assert isinstance(fault_of(write("{", "{"), skip_invalid=True), InvalidRows)


# --- options


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"model": "claude-sonet-5"}, "model"),
        ({"model": "claude-2.1"}, "model"),
        ({"max_tokens": 1_000_000}, "max_tokens"),
        ({"params": {"top_k": 3}}, "top_k"),
        ({"template": "{{ question"}, "template"),
        ({"schema": {"properties": {}}}, "schema"),
        ({"name": ""}, "name"),
        ({"name": "two\nlines"}, "name"),
    ],
)
def test_a_wrong_option_is_said_once_and_without_reading_the_file(
    options: dict[str, Any], field: str
) -> None:
    def rows() -> Any:
        pytest.fail("the source was read")
        yield

    fault = fault_of(rows(), **options)
    assert not isinstance(fault, InvalidRows)
    assert (fault.line, fault.field) == (None, field)


# --- rows from Python


def test_rows_from_python_are_counted_from_one() -> None:
    fault = fault_of([{"prompt": "a"}, {"prompt": "b", "score": math.nan}, 7])
    assert isinstance(fault, InvalidRows)
    assert [(kept.line, kept.field) for kept in fault.faults] == [(2, "score"), (3, None)]


def test_a_value_that_json_cannot_hold_is_named() -> None:
    fault = fault_of([{"prompt": "a", "who": object()}])
    assert (fault.line, fault.field) == (1, "who")


def test_no_text_of_a_prompt_is_in_a_fault(write: Callable[..., Path]) -> None:
    secret = "my-secret-prompt"
    lines: list[object] = [
        {"prompt": f"{secret} ", "custom_id": "a b"},
        f'{{"prompt": "{secret}", }}',
        {"messages": [{"role": secret, "content": secret}]},
        {
            "custom_id": "a",
            "params": {"messages": [{"role": "user", "content": secret, "x": 1}], "system": 5},
        },
    ]
    assert secret not in str(fault_of(write(*lines)))


def test_what_is_missing_everywhere_is_said_once() -> None:
    faults = Faults("rows.jsonl")
    for line in range(1, 31):
        faults.add(InvalidInput("missing", field="model" if line != 3 else "prompt"), line)
    with pytest.raises(InvalidRows) as refusal:
        faults.raise_if_any()
    assert str(refusal.value).splitlines() == [
        "30 faults, so nothing was submitted:",
        "  rows.jsonl, line 1, field model: missing (and 18 more, the last in line 20)",
        "  rows.jsonl, line 3, field prompt: missing",
        "  … and 10 more",
    ]
