"""Traces of jobs, given to OpenTelemetry and sent by it (OTLP over HTTP), for the share of jobs that is traced.

The idea: a span is made when its job has ended here, from the times that were noted, and sent by a thread of the
library's own. A collector that is away costs spans and never a job.
"""

import os
import threading
import time
from asyncio import CancelledError
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, Self

import promptmill
from promptmill import tracing
from promptmill.errors import ConfigurationError
from promptmill.states import JobState
from promptmill.tracing import ROOT, JobTrace, Span
from workers.verdicts import Answered, Deferred, Failed, Verdict

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

CLOSING_S: Final = 5.0
SERVICE: Final = "promptmill-worker"


class Traces:
    """Follows jobs; close it at the end, which sends what is left."""

    def __init__(self, provider: "TracerProvider", ids: Any, share: float) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("promptmill", promptmill.__version__)
        self._ids = ids
        self._share = share

    @classmethod
    def open(cls, share: float, *, worker_id: str) -> Self | None:
        """Traces of that share of the jobs, sent where the OTEL_… variables say; None where the share is 0.

        Raises:
            ConfigurationError: the packages are not installed.
        """
        if share <= 0:
            return None
        try:
            provider, ids = _provider(worker_id)
        except ImportError as error:
            raise ConfigurationError(
                "PROMPTMILL_TRACING: traces need OpenTelemetry, which is not installed "
                "(pip install 'promptmill[otel]'); without it set PROMPTMILL_TRACING=0",
                setting="PROMPTMILL_TRACING",
            ) from error
        return cls(provider, ids, share)

    async def follow(self, answering: Awaitable[None], job_id: str, dispatch: int) -> None:
        """Await it, and trace it where it is its turn; what it raises is raised."""
        if not tracing.is_traced(job_id, self._share):
            await answering
            return
        trace = JobTrace(job_id, dispatch, began=time.time_ns())
        tracing.begin(trace)
        try:
            await answering
        except Verdict as verdict:
            self._end(trace, *_state_of(verdict))
            raise
        except CancelledError:
            self._end(trace, JobState.PENDING, is_over=False, why="interrupted")
            raise
        except Exception as error:
            self._end(trace, "broken", is_over=False, why=type(error).__name__)
            raise
        else:
            self._end(trace, JobState.SUCCEEDED, is_over=True)

    def close(self) -> None:
        """Send what is left. A collector that is away is tried for long, so this waits for CLOSING_S at most."""
        sending = threading.Thread(target=self._provider.shutdown, name="promptmill-last-spans", daemon=True)
        sending.start()
        sending.join(CLOSING_S)

    def _end(self, trace: JobTrace, state: str, is_over: bool, why: str | None = None) -> None:
        made: list[Context] = []
        spans = tracing.spans_of(trace, ended=time.time_ns(), state=state, is_over=is_over, why=why)
        for span in spans:
            made.append(self._make(trace, span, made))

    def _make(self, trace: JobTrace, span: Span, made: "list[Context]") -> "Context":
        from opentelemetry.context import Context  # noqa: PLC0415  # an extra
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context  # noqa: PLC0415  # likewise

        if span.parent is None:
            self._ids.next_root = (tracing.trace_id_of(trace.job_id), trace.root_id)
            within = Context()  # whoever else traces in this process is not its parent
        else:
            within = _whole_job(trace) if span.parent == ROOT else made[span.parent]
        given = self._tracer.start_span(
            span.name,
            within,
            kind=SpanKind.CLIENT if span.calls else SpanKind.INTERNAL,
            attributes={name: value for name, value in span.facts.items() if value is not None},
            start_time=span.start,
        )
        if span.error is not None:
            given.set_status(Status(StatusCode.ERROR, span.error))
        given.end(span.end)
        return set_span_in_context(given)


def _state_of(verdict: Verdict) -> tuple[str, bool, str | None]:
    """The state of the job, whether this call brought it there, and why."""
    if isinstance(verdict, Deferred):
        return JobState.PENDING, False, str(verdict)
    if not verdict.is_ours:
        return "elsewhere", False, str(verdict)
    if isinstance(verdict, Failed):
        return JobState.ERRORED, True, str(verdict)
    if isinstance(verdict, Answered):
        return JobState.SUCCEEDED, True, str(verdict)
    return str(verdict), True, None


def _whole_job(trace: JobTrace) -> "Context":
    """As parent the span of the whole job, which is made when its outcome is known, perhaps by another worker."""
    from opentelemetry.trace import (  # noqa: PLC0415  # an extra
        NonRecordingSpan,
        SpanContext,
        TraceFlags,
        set_span_in_context,
    )

    ids = tracing.trace_id_of(trace.job_id), trace.root_id
    return set_span_in_context(
        NonRecordingSpan(SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
    )


def _provider(worker_id: str) -> "tuple[TracerProvider, Any]":
    """What makes spans and sends them; with ids that may be given beforehand."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # an extra
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  # likewise
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415

    facts = {"service.instance.id": worker_id, "service.version": promptmill.__version__}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        facts["service.name"] = SERVICE
    ids = _ids()
    # Which jobs are traced is decided by their ids: a sampler beside that would cut traces apart.
    provider = TracerProvider(
        resource=Resource.create(facts), id_generator=ids, sampler=ALWAYS_ON, shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider, ids


def _ids() -> Any:
    """Where ids come from: those of the next root where they are given; it is made in the same turn of the loop."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415  # an extra

    class Ids(RandomIdGenerator):
        next_root: tuple[int, int] | None = None

        def generate_trace_id(self) -> int:
            return self.next_root[0] if self.next_root else super().generate_trace_id()

        def generate_span_id(self) -> int:
            given, self.next_root = self.next_root, None
            return given[1] if given else super().generate_span_id()

    return Ids()
