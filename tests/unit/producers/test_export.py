"""Results in a file: whole or not at all."""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from producers.answers import Result
from producers.export import Format, format_of, to_file, to_stream
from promptmill.errors import ConfigurationError, InvalidInput
from promptmill.states import JobState
from promptmill.usage import Usage

RESULT = Result(
    custom_id="a",
    job_id="job_1",
    state=JobState.SUCCEEDED,
    text="hi",
    message={"stop_reason": "end_turn"},
    parsed=None,
    usage=Usage(),
    cost=None,
    attempts=1,
    error=None,
    input=None,
    simulated=False,
)


def breaking() -> Iterator[Result]:
    yield RESULT
    raise RuntimeError("the database went away")


def test_a_file_holds_one_line_a_result_in_the_order_they_came(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"

    written = to_file([RESULT, replace(RESULT, custom_id="b", simulated=True)], out, Format.JSONL)

    assert [line[:17] for line in out.read_text().splitlines()] == ['{"custom_id": "a"', '{"custom_id": "b"']
    assert (written.results, written.simulated, written.left_out) == (2, 1, 0)


def test_what_was_written_is_told_by_whether_it_is_an_answer(tmp_path: Path) -> None:
    waiting = replace(RESULT, custom_id="b", state=JobState.PENDING, text=None, message=None)

    whole = to_file([RESULT, RESULT], tmp_path / "out.jsonl", Format.JSONL)
    stopped = to_file([RESULT, waiting, waiting], tmp_path / "out.jsonl", Format.JSONL)
    left_out = to_file([RESULT, waiting], tmp_path / "out.jsonl", Format.ANTHROPIC)

    assert whole.told == "2 answers are"
    assert stopped.told == "3 lines (1 answer, 2 without one) are"
    assert left_out.told == "1 answer is"


def test_answers_without_any_text_are_told_with_their_stop_reason_but_those_that_call_a_tool() -> None:
    def empty(reason: str) -> Result:
        return replace(RESULT, text="", message={"stop_reason": reason})

    failed = replace(RESULT, state=JobState.ERRORED, text=None, message=None)
    results = [RESULT, failed, empty("tool_use"), empty("refusal"), empty("max_tokens"), empty("max_tokens")]

    written = to_stream(results, io.StringIO(), Format.JSONL)
    one = to_stream([empty("max_tokens")], io.StringIO(), Format.CSV)

    assert written.told_without_text == "3 of them have no text (stop reason max_tokens: 2, refusal: 1)"
    assert one.told_without_text == "1 of them has no text (stop reason max_tokens: 1)"
    assert to_stream([RESULT, failed], io.StringIO(), Format.JSONL).told_without_text is None


@pytest.mark.parametrize("out", ["/dev/full", "/nowhere/out.jsonl"])
@pytest.mark.parametrize("format_", [Format.JSONL, Format.CSV])
def test_a_file_that_cannot_be_written_is_named_as_it_was_typed(out: str, format_: Format) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("a device of Linux")

    with pytest.raises(OSError) as caught:
        to_file([RESULT], Path(out), format_)

    assert caught.value.filename == out
    assert caught.value.strerror


@pytest.mark.parametrize("before", [None, "the old file\n"])
def test_a_broken_export_leaves_what_was_there(tmp_path: Path, before: str | None) -> None:
    out = tmp_path / "out.jsonl"
    if before:
        out.write_text(before)

    with pytest.raises(RuntimeError):
        to_file(breaking(), out, Format.JSONL)

    assert [path.name for path in tmp_path.iterdir()] == (["out.jsonl"] if before else [])
    assert not before or out.read_text() == before


def test_the_place_a_link_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "real.jsonl").write_text("old")
    (tmp_path / "link.jsonl").symlink_to("real.jsonl")

    to_file([RESULT], tmp_path / "link.jsonl", Format.JSONL)

    assert (tmp_path / "link.jsonl").is_symlink()
    assert "job_1" in (tmp_path / "real.jsonl").read_text()


def test_csv_comes_with_a_header_and_keeps_line_breaks_inside_cells() -> None:
    out = io.StringIO(newline="")

    to_stream([replace(RESULT, text='two\nlines, "quoted"')], out, Format.CSV)

    rows = list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))
    assert rows[0]["text"] == 'two\nlines, "quoted"'


def test_jobs_that_have_not_ended_are_counted_as_left_out_of_the_apis_format() -> None:
    written = to_stream([RESULT, replace(RESULT, state=JobState.RUNNING)], io.StringIO(), Format.ANTHROPIC)

    assert (written.results, written.left_out) == (1, 1)


def test_the_ending_of_a_file_says_its_format() -> None:
    assert format_of(Path("a.CSV")) is Format.CSV
    assert format_of(Path("a.parquet")) is Format.PARQUET
    assert {format_of(Path(name)) for name in ("a.jsonl", "a.ndjson", "/dev/stderr")} == {Format.JSONL}


@pytest.mark.parametrize("name", ["a.xlsx", "a.json", "a.jsonl.gz", "a.csv.gz"])
def test_an_ending_that_no_format_has_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"known endings are \.jsonl, \.ndjson, \.csv and \.parquet"):
        format_of(Path(name))


def test_parquet_is_no_text() -> None:
    with pytest.raises(ConfigurationError, match="-o"):
        to_stream([RESULT], io.StringIO(), Format.PARQUET)


def test_parquet_round_trips(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")

    to_file([RESULT, replace(RESULT, custom_id="b", text=None)], tmp_path / "out.parquet", Format.PARQUET)

    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["custom_id"] for row in table] == ["a", "b"]
    assert table[1]["text"] is None
