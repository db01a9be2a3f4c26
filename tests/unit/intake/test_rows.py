"""What becomes of a good row, whatever it came from."""

import csv
import gzip
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from promptmill.catalogue import CATALOGUE
from promptmill.clock import ManualClock
from promptmill.errors import ConfigurationError, InvalidInput
from promptmill.estimates import estimate_input
from promptmill.intake.admit import survey
from promptmill.intake.options import SubmitOptions
from promptmill.intake.shared import Shared
from promptmill.intake.sources import rows_of, stem_of
from promptmill.intake.spool import Spool, SpooledRow
from promptmill.intake.survey import Survey, Surveyor
from promptmill.prompts import Prompt, fingerprint_of, merge

NOW = datetime(2026, 11, 22, tzinfo=UTC)
CHINESE = "珍妮特的鸭子每天下 16 颗蛋。"


def read(source: object, **options: Any) -> tuple[Survey, list[SpooledRow], list[dict[str, Any]]]:
    """The survey, the rows, and the request bodies they stand for."""
    with Spool() as spool:
        given = SubmitOptions(**{"model": "claude-sonnet-5", **options})
        surveyor = Surveyor(
            options=given, spool=spool, today=NOW.date(), simulated=False, catalogue=CATALOGUE
        )
        found = surveyor.survey(source)
        rows = list(spool.rows())
        own = [surveyor.shared.restore(row.seq, row.own) for row in rows]
        return found, rows, [dict(merge(found.shared, fields).body) for fields in own]


def texts_of(source: object, **options: Any) -> list[str]:
    _, _, bodies = read(source, **options)
    return [body["messages"][0]["content"] for body in bodies]


# --- files


@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "txt", "JSONL"])
def test_json_lines_are_read_with_any_ending_and_any_line_break(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"in.{ending}"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n{"prompt": "b"}\n\n{"prompt": "c"}')
    assert list(rows_of(path)) == [(1, {"prompt": "a"}), (3, {"prompt": "b"}), (5, {"prompt": "c"})]


def test_a_line_separator_inside_a_text_is_no_line_break(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "a\u2028b\x85c"}\n', encoding="utf-8")
    assert texts_of(path) == ["a\u2028b\x85c"]


def test_gzip_is_read_as_what_it_holds(tmp_path: Path) -> None:
    lines, table = tmp_path / "in.jsonl.gz", tmp_path / "in.csv.gz"
    lines.write_bytes(gzip.compress(json.dumps({"prompt": CHINESE}).encode()))
    table.write_bytes(gzip.compress(f"prompt\n{CHINESE}\n".encode()))
    assert texts_of(lines) == texts_of(table) == [CHINESE]


def test_csv_keeps_quotes_line_breaks_and_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(
            [["prompt", "answer"], ['say "hi",\nthen go', "1"], [CHINESE, "2"], ["x" * 200_000, "3"]]
        )
    rows = list(rows_of(path))
    assert [line for line, _ in rows] == [2, 4, 5]
    assert rows[0][1] == {"prompt": 'say "hi",\nthen go', "answer": "1"}
    assert rows[1][1]["prompt"] == CHINESE
    assert len(rows[2][1]["prompt"]) == 200_000


def test_a_row_with_too_few_fields_is_a_fault_and_the_next_is_read(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("prompt,answer\na,1\nb\nc,3,4\nd,4\n")
    rows = dict(rows_of(path))
    assert str(rows[3]) == "1 field where 2 are named"
    assert str(rows[4]) == "3 fields where 2 are named"
    assert rows[5] == {"prompt": "d", "answer": "4"}


@pytest.mark.parametrize(
    ("header", "why"), [("a,,b", "column 2 has no name"), ("a,b,a", "column 3 has the name")]
)
def test_a_header_must_name_every_column_once(tmp_path: Path, header: str, why: str) -> None:
    path = tmp_path / "in.csv"
    path.write_text(f"{header}\n1,2,3\n")
    with pytest.raises(InvalidInput, match=why):
        list(rows_of(path))


def test_a_tsv_file_without_a_header_takes_its_columns_from_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "in.tsv"
    path.write_text(f"{CHINESE}\t18\n它一共需要多少匹布料。\t3\n", encoding="utf-8")
    rows = list(rows_of(path, ["question", "answer"]))
    assert rows[0] == (1, {"question": CHINESE, "answer": "18"})
    assert texts_of(path, columns=["question", "answer"], template="{{ question }}")[0] == CHINESE


def test_a_template_over_a_file_without_a_header_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "in.tsv"
    path.write_text("第一个 问题\t18\n第二个 问题\t3\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match="give --columns"):
        read(path, template="{{ question }}")


def test_text_files_know_no_numbers_so_a_ceiling_is_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("prompt,max_tokens\na,12\n")
    _, _, [body] = read(path)
    assert body["max_tokens"] == 12


def test_standard_input_is_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "a"}\n{"prompt": "b"}\n')))
    found, _, bodies = read("-")
    assert found.name.startswith("stdin-")
    assert len(bodies) == 2


def test_parquet_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "in.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(ConfigurationError, match=r"pip install 'promptmill\[parquet\]'"):
        read(path)


# --- Python


def test_strings_dicts_and_prompts_may_be_mixed_in_any_iterable() -> None:
    def rows() -> Iterator[object]:
        yield "a"
        yield {"prompt": "b", "n": 1}
        yield Prompt(
            {"model": "claude-opus-5", "max_tokens": 9, "messages": [{"role": "user", "content": "c"}]}
        )

    found, kept, bodies = read(rows())
    assert [body["messages"][0]["content"] for body in bodies] == ["a", "b", "c"]
    assert [body["model"] for body in bodies] == ["claude-sonnet-5", "claude-sonnet-5", "claude-opus-5"]
    assert [row.source for row in kept] == [{"prompt": "a"}, {"prompt": "b", "n": 1}, None]
    assert found.models == {"claude-sonnet-5": 2, "claude-opus-5": 1}


def test_values_from_python_become_json() -> None:
    _, [row], _ = read(
        [{"prompt": "a", "day": date(2026, 1, 2), "price": Decimal("1.10"), "tags": ("x", "y")}]
    )
    assert row.source == {"prompt": "a", "day": "2026-01-02", "price": "1.10", "tags": ["x", "y"]}


class FakeFrame:
    """What pandas offers, in small."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    @property
    def iloc(self) -> "FakeFrame":
        return self

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, part: slice) -> "FakeFrame":
        return FakeFrame(self._rows[part])

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return self._rows

    def __eq__(self, other: object) -> Any:
        raise ValueError("The truth value of a frame is ambiguous")

    __hash__ = None  # type: ignore[assignment]  # as pandas has it


def test_a_frame_is_read_row_by_row_and_a_gap_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    frame = FakeFrame([{"prompt": f"p{n}", "score": float("nan") if n % 2 else n} for n in range(5_000)])
    rows = list(rows_of(frame))
    assert stem_of(frame) == "rows"
    assert len(rows) == 5_000
    assert rows[1] == (2, {"prompt": "p1", "score": None})


# --- shapes of a line


def test_an_anthropic_line_is_passed_through_unchanged() -> None:
    params = {
        "model": "claude-opus-5",
        "max_tokens": 7,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a", "new_field": {"x": 1}}]}],
        "thinking": {"type": "adaptive"},
        "something_from_next_year": [1, 2],
    }
    _, [row], [body] = read([{"custom_id": "mine", "params": params, "label": "kept"}], system=None)
    assert body == params
    assert (row.custom_id, row.source) == ("mine", {"label": "kept"})


def test_options_fill_in_what_an_anthropic_line_leaves_out() -> None:
    line = {"custom_id": "a", "params": {"messages": [{"role": "user", "content": "x"}]}}
    _, _, [body] = read([line], max_tokens=5, system="Be brief.", params={"stop_sequences": ["#"]})
    assert body == {
        "model": "claude-sonnet-5",
        "max_tokens": 5,
        "system": "Be brief.",
        "stop_sequences": ["#"],
        "messages": [{"role": "user", "content": "x"}],
    }


def test_an_openai_line_is_translated() -> None:
    line = {
        "custom_id": "r1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "gpt-4o-mini",
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    ],
                },
            ],
            "max_completion_tokens": 50,
            "stop": "END",
            "user": "u-1",
            "reasoning_effort": "low",
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "object"}},
            },
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "tool_choice": "required",
            "n": 1,
            "seed": None,
        },
        "label": "kept",
    }
    _, [row], [body] = read([line])
    assert body == {
        "model": "claude-sonnet-5",
        "max_tokens": 50,
        "system": "Be kind.\n\nBe brief.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                    },
                ],
            }
        ],
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u-1"},
        "output_config": {
            "effort": "low",
            "format": {"type": "json_schema", "schema": {"type": "object"}},
        },
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any"},
    }
    assert (row.custom_id, row.source) == ("r1", {"label": "kept"})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"seed": 7}, "body.seed"),
        ({"n": 2}, "body.n"),
        ({"frequency_penalty": 0.5}, "body.frequency_penalty"),
        ({"temperature": 0.2}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "body.response_format"),
        ({"reasoning_effort": "minimal"}, "body.reasoning_effort"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "body.messages[0].role"),
        ({"messages": [{"role": "assistant", "tool_calls": []}]}, "body.messages[0].tool_calls"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "body.messages[0].content[0]",
        ),
    ],
)
def test_an_openai_field_without_a_counterpart_is_named(fields: dict[str, Any], field: str) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5} | fields
    with pytest.raises(InvalidInput) as caught:
        read([{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}])
    assert caught.value.field == field


def test_another_openai_endpoint_is_refused() -> None:
    with pytest.raises(InvalidInput, match="only /v1/chat/completions"):
        read([{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"input": "x"}}])


def test_the_fields_of_a_plain_row_that_are_request_fields_win_over_the_options() -> None:
    _, [row], [body] = read(
        [{"prompt": "a", "model": "claude-opus-5", "system": "mine", "age": 3}], system="yours"
    )
    assert (body["model"], body["system"]) == ("claude-opus-5", "mine")
    assert "age" not in body
    assert row.source is not None
    assert row.source["age"] == 3


def test_fields_that_are_merely_alike_are_data_of_the_users_own() -> None:
    own = {"models": 2, "message": "m", "customer_id": "c", "model_a": "x", "prompt2": "y", "mode": "fast"}
    own |= {"question": "q", "answer": "a", "seed": 7, "meta_data": {}, "container_id": "z", "x" * 5_000: 1}
    _, [row], [body] = read([{"prompt": "a", **own}])
    assert row.source == {"prompt": "a", **own}
    assert sorted(body) == ["max_tokens", "messages", "model"]


def test_a_field_alike_is_no_slip_where_the_one_it_resembles_is_there_too() -> None:
    _, [row], _ = read([{"prompt": "a", "Prompt": "the title", "system": "s", "systm": 1}])
    assert row.source is not None
    assert row.source["Prompt"] == "the title"


def test_a_gap_in_the_messages_of_a_table_leaves_the_prompt() -> None:
    assert texts_of([{"prompt": "a", "messages": None}]) == ["a"]
    assert texts_of([{"prompt": None, "messages": [{"role": "user", "content": "b"}]}]) == ["b"]


def test_what_params_have_may_be_noted_beside_them() -> None:
    params = {"model": "claude-opus-5", "messages": [{"role": "user", "content": "x"}]}
    line = {"custom_id": "a", "params": params, "model": "opus", "metadata": {"page": 3}}
    _, [row], [body] = read([line])
    assert row.source == {"model": "opus", "metadata": {"page": 3}}
    assert body["model"] == "claude-opus-5"


def test_under_a_template_every_field_is_data() -> None:
    _, _, [body] = read(
        [{"model": "Volvo", "system": "metric", "promt": 1, "prompt": "p", "messages": "m"}],
        template="A {{ model }} in {{ system }} units",
    )
    assert body["model"] == "claude-sonnet-5"
    assert body["messages"][0]["content"] == "A Volvo in metric units"


def test_a_list_of_blocks_is_a_prompt_too() -> None:
    assert texts_of([{"prompt": [{"type": "text", "text": "a"}]}]) == [[{"type": "text", "text": "a"}]]


def test_stream_false_says_what_is_understood_anyway() -> None:
    _, _, [body] = read(
        [{"custom_id": "a", "params": {"stream": False, "messages": [{"role": "user", "content": "x"}]}}]
    )
    assert "stream" not in body


def test_a_schema_becomes_the_format_of_the_output() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}}
    _, _, [body] = read([{"prompt": "x"}], schema=schema, params={"output_config": {"effort": "low"}})
    assert body["output_config"]["effort"] == "low"
    sent = body["output_config"]["format"]["schema"]
    assert sent["additionalProperties"] is False
    assert sent["properties"]["a"]["additionalProperties"] is False
    assert "additionalProperties" not in schema


# --- names


def test_a_row_without_a_name_is_called_by_its_line_and_its_prompt(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "a"}\n\n{"prompt": "a"}\n{"prompt": "b", "custom_id": "x"}\n')
    _, rows, bodies = read(path)
    prints = [fingerprint_of(body) for body in bodies]
    assert [row.custom_id for row in rows] == [
        f"00000001-{prints[0][:12]}",
        f"00000003-{prints[0][:12]}",
        "x",
    ]
    assert [row.fingerprint for row in rows] == prints


@pytest.mark.parametrize("number", [17, 17.0])
def test_a_whole_number_serves_as_custom_id(number: float) -> None:
    _, [row], _ = read([{"custom_id": number, "prompt": "a"}])
    assert row.custom_id == "17"


@pytest.mark.parametrize(
    ("source", "stem"),
    [
        ("data/my.prompts.jsonl.gz", "my"),
        (Path("x.csv"), "x"),
        ("-", "stdin"),
        ([], "rows"),
        (".jsonl", "file"),
    ],
)
def test_a_batch_is_called_after_its_source(source: object, stem: str) -> None:
    assert stem_of(source) == stem


def test_the_name_changes_with_content_and_options_and_with_nothing_else(tmp_path: Path) -> None:
    def name(rows: list[Any], *, simulated: bool = False, **options: Any) -> str:
        given = SubmitOptions(**{"model": "claude-sonnet-5", **options})
        return survey(rows, given, simulated=simulated, clock=ManualClock(NOW)).name

    rows = [{"prompt": "a"}, {"prompt": "b"}]
    usual = name(rows)
    assert usual == name(rows, budget_nanos=5, priority=10.0, tags={"a": "b"}, skip_invalid=True)
    others = [
        name(rows[::-1]),
        name(rows, max_tokens=7),
        name(rows, model="claude-opus-5"),
        name(rows, simulated=True),
        name(rows, limit=1),
        name([{"prompt": "a", "custom_id": "x"}, {"prompt": "b"}]),
    ]
    assert len({usual, *others}) == 7


# --- what rows share


def test_what_all_rows_share_is_stored_once() -> None:
    long = "You are a careful judge. " * 400
    lines = [
        {"custom_id": f"r{n}", "params": {"model": "claude-opus-5", "max_tokens": 9, "system": long, "messages": [
            {"role": "user", "content": f"q{n}"}]}}
        for n in range(3)
    ]  # fmt: skip
    found, rows, _ = read(lines)
    assert found.shared == {"model": "claude-opus-5", "max_tokens": 9, "system": long}
    assert all(set(row.own) == {"messages"} for row in rows)


def test_a_row_of_its_own_mind_costs_only_itself() -> None:
    rows = [{"prompt": "a"}, {"prompt": "b", "system": "other"}, {"prompt": "c"}]
    found, kept, bodies = read(rows, system="usual")
    assert found.shared["system"] == "usual"
    assert [set(row.own) for row in kept] == [{"messages"}, {"messages", "system"}, {"messages"}]
    assert [body["system"] for body in bodies] == ["usual", "other", "usual"]


def test_a_field_that_one_row_lacks_is_shared_by_none() -> None:
    bodies: list[dict[str, Any]] = [{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"b": 2}, {"a": 1, "b": 2, "c": 1}]
    shared = Shared({})
    own = [shared.split(body) for body in bodies]
    assert shared.fields == {"b": 2}
    restored = [{**shared.fields, **shared.restore(place, fields)} for place, fields in enumerate(own)]
    assert restored == bodies


# --- figures


def test_the_estimate_is_the_sum_over_the_rows() -> None:
    found, rows, bodies = read([{"prompt": "a " * n} for n in range(1, 30)], system="Be brief.")
    assert [row.input_tokens for row in rows] == [estimate_input(body) for body in bodies]
    assert found.estimate.input_tokens == sum(row.input_tokens for row in rows)
    assert found.estimate.output_tokens == 29 * 400
    assert found.estimate.cost_nanos == found.estimate.input_tokens * 2_000 + 29 * 400 * 10_000


def test_left_out_duplicates_are_not_in_the_estimate() -> None:
    rows = [{"prompt": "a", "custom_id": "x"}, {"prompt": "a", "custom_id": "x"}]
    alone, _, _ = read(rows[:1])
    found, kept, _ = read(rows, skip_invalid=True)
    assert found.estimate == alone.estimate
    assert len(kept) == 1


def test_a_model_that_retires_soon_is_noticed() -> None:
    found, _, _ = read([{"prompt": "a"}], model="claude-sonnet-4-5")
    assert found.notices == ("claude-sonnet-4-5 retires on 2026-11-30: calls from that day on fail",)


# --- text of every kind


@pytest.mark.parametrize(
    "text", [CHINESE, "a\x00b", "\ud800 alone", "👩‍💻", "\u202eright to left", "tab\tand\nbreak"]
)
def test_any_text_survives_the_way_through(tmp_path: Path, text: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"prompt": text, "note": text}) + "\n")
    _, [row], [body] = read(path)
    assert body["messages"][0]["content"] == text
    assert row.source == {"prompt": text, "note": text}
    assert texts_of([{"q": text}], template="{{ q }}") == [text]


# --- templates


def test_values_are_data_and_never_rendered_again() -> None:
    assert texts_of([{"q": "{{ 7 * 7 }} {% raw %}"}], template="<{{ q }}>") == ["<{{ 7 * 7 }} {% raw %}>"]


def test_a_field_whose_name_is_no_variable_is_reached_through_row() -> None:
    assert texts_of([{"first name": "Ada"}], template="{{ row['first name'] }}") == ["Ada"]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("one\ntwo {{ missing }}", "line 2 of the template: 'missing' is undefined; the row has q, n"),
        ("{{ q.deep.er }}", "line 1 of the template: 'str object' has no attribute 'deep'"),
        ("{{ q.__class__.__mro__ }}", "line 1 of the template: access to attribute '__class__'"),
        ("{% for i in range(10**9) %}x{% endfor %}", "OverflowError"),
        ("{{ n / 0 }}", "line 1 of the template: ZeroDivisionError"),
        ("{{ n.append(1) }}", "has no attribute 'append'"),
        ("{# nothing #}", "is empty"),
        (
            "{% for i in range(90000) %}{% for j in range(90000) %}xxxxxxxxxx{% endfor %}{% endfor %}",
            "8,000,000",
        ),
    ],
)
def test_a_template_that_fails_names_its_own_line(template: str, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read([{"q": "text", "n": 3}], template=template)
    assert caught.value.field == "template"
    assert caught.value.line == 1
    assert why in str(caught.value)


def test_a_template_with_a_fault_of_syntax_names_the_line() -> None:
    with pytest.raises(InvalidInput, match="line 3 of the template"):
        read([{"q": 1}], template="a\nb\n{% if %}")


# --- size


SURVEY_OF_MANY = """
import pathlib, resource, sys
from promptmill.clock import SystemClock
from promptmill.intake.admit import survey
from promptmill.intake.options import SubmitOptions
rows = ({"prompt": f"What is {n}?", "custom_id": f"row-{n}"} for n in range(int(sys.argv[1])))
found = survey(rows, SubmitOptions(model="claude-sonnet-5"), simulated=True, clock=SystemClock())
status = pathlib.Path("/proc/self/status")
if status.exists():  # Linux's ru_maxrss begins with the size of the process that started this one
    peak = int(status.read_text().partition("VmHWM:")[2].split()[0])
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(found.jobs, peak)
"""


def test_memory_is_flat_in_the_number_of_rows() -> None:
    def peak_of(rows: int) -> int:
        ran = subprocess.run(
            [sys.executable, "-c", SURVEY_OF_MANY, str(rows)], capture_output=True, text=True, check=True
        )
        jobs, kilobytes = map(int, ran.stdout.split())
        assert jobs == rows
        return kilobytes

    # 100,000 rows are 40 MB as Python objects at the very least, and their names alone 10 MB in a set.
    assert peak_of(100_000) < peak_of(1_000) + 25_000


def test_an_anthropic_line_without_a_name_gets_its_default() -> None:
    params = {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    _, rows, [body] = read([{"params": params}])
    assert body["messages"] == params["messages"]
    assert body["max_tokens"] == 9
    assert rows[0].custom_id.startswith("0000000")


def test_a_field_called_params_is_data_for_a_template() -> None:
    assert texts_of([{"params": {"x": 1}}], template="{{ params.x }}") == ["1"]
