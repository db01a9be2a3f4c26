"""Which call of a job writes the span that holds all others of it."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from promptmill import tracing
from promptmill.ids import new_id
from promptmill.states import JobState
from workers import spans
from workers.spans import Traces
from workers.verdicts import Verdict, verdict_on

Answer = Callable[..., list[ReadableSpan]]


@pytest.fixture
def answer() -> Iterator[Answer]:
    """`answer(job_id, verdict, forgiven)`: the spans of one call whose task ends with this verdict."""
    kept, ids = InMemorySpanExporter(), spans._ids()
    provider = TracerProvider(id_generator=ids, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    traces = Traces(provider, ids, 1.0)

    async def answering(verdict: Verdict | None, forgiven: int) -> None:
        tracing.note(forgiven=forgiven)
        if verdict is not None:
            raise verdict

    async def call(job_id: str, verdict: Verdict | None, forgiven: int) -> None:
        try:
            await traces.follow(answering(verdict, forgiven), job_id, 2)
        except Verdict:
            return

    def answer(job_id: str, verdict: Verdict | None = None, forgiven: int = 0) -> list[ReadableSpan]:
        kept.clear()
        asyncio.run(call(job_id, verdict, forgiven))
        return list(kept.get_finished_spans())

    yield answer
    provider.shutdown()


def ours(state: JobState) -> Verdict:
    return verdict_on(state, "why", is_ours=True)


def root_of(found: list[ReadableSpan]) -> ReadableSpan:
    """The span of the whole job; the others must be in it."""
    [root] = [span for span in found if span.name == "promptmill.job"]
    assert all(span.parent and span.parent.span_id == id_of(root) for span in found if span is not root)
    return root


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def test_a_job_that_a_person_retried_has_a_span_of_the_whole_for_each_time(answer: Answer) -> None:
    job_id = new_id("job")

    failed = root_of(answer(job_id, ours(JobState.ERRORED)))
    answered = root_of(answer(job_id, forgiven=1))

    assert id_of(failed) != id_of(answered)
    assert failed.context
    assert answered.context
    assert failed.context.trace_id == answered.context.trace_id


@pytest.mark.parametrize("state", [JobState.ERRORED, JobState.SUCCEEDED, JobState.CANCELED])
def test_a_message_that_came_twice_writes_no_second_span_of_the_whole(
    answer: Answer, state: JobState
) -> None:
    [dispatch] = answer(new_id("job"), verdict_on(state, "since this was sent out"))

    assert dispatch.name == "promptmill.dispatch"
    assert dispatch.attributes
    assert dispatch.attributes["promptmill.job.state"] == "elsewhere"
    assert dispatch.status.is_unset


@pytest.mark.parametrize("state", [JobState.ERRORED, JobState.SUCCEEDED, JobState.CANCELED])
def test_who_wrote_the_outcome_writes_the_span_of_the_whole(answer: Answer, state: JobState) -> None:
    root = root_of(answer(new_id("job"), ours(state)))  # succeeded: by an answer that was cut, and is kept

    assert root.attributes
    assert root.attributes["promptmill.job.state"] == state
