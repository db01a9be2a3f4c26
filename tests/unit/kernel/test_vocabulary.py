"""The words: ids, prompts, states, usage, logs."""

import io
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmill import logs
from promptmill.errors import InvalidInput, InvalidTransition
from promptmill.ids import new_id, new_ids
from promptmill.prompts import Prompt, canonical_json, fingerprint_of, merge
from promptmill.states import (
    JOB_CHANGES,
    TERMINAL_JOB_STATES,
    BatchState,
    JobState,
    check_batch_change,
)
from promptmill.usage import Usage


def test_ids_serve_as_custom_ids_and_do_not_repeat() -> None:
    ids = {new_id("job") for _ in range(10_000)}
    assert len(ids) == 10_000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", one) for one in ids)


def test_ids_sort_by_the_millisecond_they_were_made_in() -> None:
    earlier = new_id("job")
    while new_id("job")[:14] == earlier[:14]:
        pass
    assert new_id("job") > earlier


def test_ids_made_at_once_ascend_and_are_as_long_as_others() -> None:
    ids = new_ids("job", 3_000)
    assert sorted(set(ids)) == ids
    assert {len(each) for each in ids} == {len(new_id("job"))}
    assert set(ids).isdisjoint(new_ids("job", 3_000))


def test_equal_prompts_have_equal_fingerprints_whatever_the_order_of_fields() -> None:
    one = Prompt({"model": "m", "max_tokens": 1, "messages": []})
    other = Prompt({"messages": [], "max_tokens": 1, "model": "m"})
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != Prompt({"model": "m", "max_tokens": 2, "messages": []}).fingerprint


def test_a_jobs_own_fields_stand_over_those_its_batch_shares() -> None:
    prompt = merge({"model": "m", "max_tokens": 5}, {"max_tokens": 9, "messages": []})
    assert (prompt.model, prompt.max_tokens) == ("m", 9)


@given(st.text())
def test_any_text_has_a_fingerprint(text: str) -> None:
    assert len(fingerprint_of({"text": text})) == 32


def test_a_lone_surrogate_is_escaped_and_chinese_is_not() -> None:
    assert canonical_json({"a": "\ud800"}) == '{"a":"\\ud800"}'
    assert canonical_json({"a": "鸭子"}) == '{"a":"鸭子"}'


def test_what_has_ended_only_comes_back_to_pending() -> None:
    late = {JobState.ERRORED: {JobState.SUCCEEDED}}  # given up as lost, and then the answer came
    for state in TERMINAL_JOB_STATES:
        assert JOB_CHANGES[state] == {JobState.PENDING} | late.get(state, set())


def test_a_job_is_completed_from_running_pending_or_queued() -> None:
    for state in (JobState.RUNNING, JobState.PENDING, JobState.QUEUED):
        assert JobState.SUCCEEDED in JOB_CHANGES[state]


def test_a_change_of_a_batch_that_the_table_does_not_allow_is_refused() -> None:
    with pytest.raises(InvalidTransition, match="ended cannot become paused"):
        check_batch_change(BatchState.ENDED, BatchState.PAUSED)


def test_usage_reads_disjoint_buckets_and_null_fields() -> None:
    usage = Usage.from_reply(
        {
            "input_tokens": 50,
            "cache_creation_input_tokens": 1200,
            "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 1000},
            "cache_read_input_tokens": None,
            "output_tokens": 503,
            "server_tool_use": {"web_search_requests": 3},
        }
    )
    assert usage == Usage(
        input_tokens=50,
        output_tokens=503,
        cache_write_5m_tokens=200,
        cache_write_1h_tokens=1000,
        web_searches=3,
    )
    assert usage.limited_input_tokens == 1250


def test_cache_writes_without_a_split_count_as_five_minute_writes() -> None:
    usage = Usage.from_reply({"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 7})
    assert (usage.cache_write_5m_tokens, usage.cache_write_1h_tokens) == (7, 0)


def test_cache_reads_are_part_of_the_prompt_but_not_of_the_limit() -> None:
    usage = Usage(input_tokens=10, cache_read_tokens=90)
    assert (usage.total_input_tokens, usage.limited_input_tokens) == (100, 10)


def test_a_fault_names_file_line_and_field() -> None:
    fault = InvalidInput("is missing", file="a.jsonl", line=3, field="model")
    assert str(fault) == "a.jsonl, line 3, field model: is missing"


def test_keys_and_passwords_are_scrubbed_from_every_line() -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure(level="INFO", style="json", stream=stream)
        logs.get_logger("a").info("started", url="redis://me:hunter2@host/0", key="sk-ant-api03-abcdef")
        logging.getLogger("b").warning("key sk-ant-api03-abcdef was refused")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert "hunter2" not in stream.getvalue()
    assert "abcdef" not in stream.getvalue()
    assert "started" in stream.getvalue()
