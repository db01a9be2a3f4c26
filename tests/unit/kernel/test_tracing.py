"""A job's trace is a matter of its id, and its spans are a matter of what was noted."""

import time

from hypothesis import given
from hypothesis import strategies as st

from promptmill.ids import new_id, new_ids, time_of
from promptmill.tracing import (
    BEGUN,
    CLOSED,
    LOADED,
    PERMITTED,
    JobTrace,
    Span,
    is_traced,
    root_id_of,
    spans_of,
    trace_id_of,
)
from promptmill.usage import Usage


def a_trace(dispatch: int = 1, **marks: int) -> JobTrace:
    return JobTrace("job_1", dispatch, began=100, marks=marks, facts={"batch_id": "batch_1", "model": "m"})


def by_name(spans: list[Span]) -> dict[str, Span]:
    return {each.name: each for each in spans}


def test_an_id_tells_when_it_was_made() -> None:
    before = time.time_ns() // 10**6 * 10**6  # an id knows its millisecond
    made = new_id("job")

    assert before <= (time_of(made) or 0) <= time.time_ns()
    assert time_of(new_ids("job", 3)[2]) is not None
    assert time_of("row-7") is None


@given(st.text())
def test_ids_of_a_trace_are_never_zero_and_always_the_same(job_id: str) -> None:
    job_id = job_id.encode("utf-8", "replace").decode()
    assert 0 < trace_id_of(job_id) == trace_id_of(job_id) < 2**128
    assert 0 < root_id_of(job_id) < 2**64


def test_the_share_that_is_traced_is_about_the_share_that_was_asked_for() -> None:
    ids = new_ids("job", 4000)

    assert 0.2 < sum(is_traced(each, 0.25) for each in ids) / len(ids) < 0.3
    assert not any(is_traced(each, 0) for each in ids)
    assert all(is_traced(each, 1) for each in ids)


def test_a_job_that_was_answered_has_every_stretch_of_its_way() -> None:
    trace = a_trace(**{LOADED: 110, PERMITTED: 120, BEGUN: 130, CLOSED: 180})
    trace.facts["usage"] = Usage(input_tokens=5, output_tokens=7, cache_read_tokens=2)

    spans = spans_of(trace, ended=200, state="succeeded", is_over=True)

    assert [(each.name, each.start, each.end, each.parent) for each in spans] == [
        ("promptmill.dispatch", 100, 200, -1),
        ("promptmill.wait", 100, 100, -1),
        ("promptmill.permit", 110, 120, 0),
        ("chat m", 130, 180, 0),
        ("promptmill.store", 180, 200, 0),
        ("promptmill.job", 100, 200, None),
    ]
    assert spans[3].facts["gen_ai.usage.input_tokens"] == 7
    assert all(each.error is None for each in spans)


def test_a_job_that_went_back_has_no_span_of_the_whole_yet() -> None:
    trace = a_trace(dispatch=2, **{LOADED: 110, PERMITTED: 120, BEGUN: 130, CLOSED: 180})
    trace.facts |= {"kind": "overloaded", "status": 529}

    found = by_name(spans_of(trace, ended=200, state="pending", is_over=False))

    assert set(found) == {"promptmill.dispatch", "promptmill.permit", "chat m", "promptmill.store"}
    assert found["chat m"].error == "overloaded"
    assert found["promptmill.dispatch"].error is None


def test_waiting_for_a_permit_in_vain_is_shown_to_the_end() -> None:
    found = by_name(spans_of(a_trace(**{LOADED: 110}), ended=200, state="pending", is_over=False))

    assert (found["promptmill.permit"].start, found["promptmill.permit"].end) == (110, 200)
