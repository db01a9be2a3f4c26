"""One trace a job, from its submission to its outcome, as a collector receives it; and the lines that a worker writes."""

import json
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from promptmill.testing import a_batch, a_prompt, simulated_claude

pytestmark = pytest.mark.timeout(120)

WORD = "pomegranate-7311"


@dataclass
class Collector:
    """Takes OTLP over HTTP and keeps every span."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)

    def traces(self) -> dict[bytes, list[Any]]:
        """Spans by trace."""
        found: defaultdict[bytes, list[Any]] = defaultdict(list)
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        found[span.trace_id].append(span)
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def test_a_job_is_one_trace_from_its_submission_to_its_outcome(
    start_mill: Callable[..., Any], sqlite_url: str, collector: Collector, tmp_path: Path
) -> None:
    with simulated_claude(faults=[{"kind": "overloaded", "nth": 1}]) as claude:
        mill = start_mill(
            sqlite_url,
            claude,
            PROMPTMILL_TRACING="1",
            PROMPTMILL_LOG_LEVEL="INFO",
            PROMPTMILL_LOG_FORMAT="json",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="200",
        )
        worker = mill.start_worker()
        mill.wait_for_end(a_batch(mill.database, [a_prompt(f"Say {WORD}")]).id)
        refused = a_batch(mill.database, [a_prompt(f"Say {WORD}", model="claude-of-nowhere")])
        mill.wait_for_end(refused.id)
        worker.terminate()
        assert worker.wait(60) == 0

    answered, failed = sorted(collector.traces().values(), key=len, reverse=True)
    names = [each.name for each in sorted(answered, key=lambda each: each.start_time_unix_nano)]
    [root] = [each for each in answered if each.name == "promptmill.job"]
    attempts = [each for each in answered if each.name == "chat claude-sonnet-5"]

    assert sorted(set(names)) == [
        "chat claude-sonnet-5",
        "promptmill.dispatch",
        "promptmill.job",
        "promptmill.permit",
        "promptmill.store",
        "promptmill.wait",
    ]
    assert not root.parent_span_id
    assert len(attempts) == 2
    ids = {each.span_id for each in answered}
    assert all(each.parent_span_id in ids for each in answered if each is not root)
    assert all(root.start_time_unix_nano <= each.start_time_unix_nano for each in answered)
    assert [each.status.message for each in failed if each.name == "promptmill.job"] == ["errored"]
    assert WORD.encode() not in b"".join(collector.bodies)

    lines = [json.loads(line) for line in mill.logs().splitlines()]
    [given_up] = [line for line in lines if line["event"] == "job_given_up"]
    assert given_up["batch_id"] == refused.id
    assert given_up["attempt"] == 1
    assert WORD not in mill.logs()


def test_traces_without_the_package_are_refused_in_a_sentence(
    start_mill: Callable[..., Any], sqlite_url: str, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden" / "opentelemetry"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('hidden by a test')")
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_TRACING="0.5", PYTHONPATH=str(hidden.parent))
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "workers.app", "worker"],
            env=mill.environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode != 0
    assert "PROMPTMILL_TRACING: traces need OpenTelemetry" in done.stderr
    assert "pip install 'promptmill[otel]'" in done.stderr
    assert "Traceback" not in done.stderr
