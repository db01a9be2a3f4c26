"""Promptmill as `promptmill run` does it: submit, watch until the last outcome is committed, export.

    python promptmill_whole.py URL BODIES.jsonl IN_FLIGHT WARM WORKERS

The worker processes stand ready before the clocks start, as the others' do; what starting costs is not a cost per
job. The wall time ends with the commit of the last outcome, the CPU with the last line of the export.
"""

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from course import Lap, read_course

import producers
from producers import export
from producers.running import Crew
from producers.stack import Stack, local_stack
from promptmill.runtime import open_database
from promptmill.settings import Settings, load
from promptmill.store import workers as stored_workers
from promptmill.store.database import Database, database_now

_LOOK_S = 0.05


def main() -> None:
    course, count = read_course(), int(sys.argv[5])
    settings = load()
    migrate(settings)
    with local_stack(settings, lambda _: None) as stack:
        Crew(stack, count).start()
        until_ready(stack.settings, count)
        answer(stack.settings, course.warm, "warm")
        before, began = cpu_of(stack), time.time()
        ended = answer(stack.settings, course.bodies, "counted")
        after = cpu_of(stack)
        Lap(ended - began, {part: after[part] - before[part] for part in after}).tell()


def migrate(settings: Settings) -> None:
    """A Postgres database is not migrated by itself."""
    with contextlib.closing(Database.open(settings.effective_database_url)) as database:
        database.migrate()


def answer(settings: Settings, bodies: list[dict[str, Any]], name: str) -> float:
    """Everything that `run` does with a file; the time at which the batch ended, in seconds of the epoch."""
    source = settings.home / f"{name}.jsonl"
    rows = ({"custom_id": f"row-{number}", "params": body} for number, body in enumerate(bodies))
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    batch = producers.submit(str(source), name=name, new=True, settings=settings)
    *_, last = batch.watch()
    written = export.to_file(
        batch.results(None), Path(settings.home / f"{name}.out.jsonl"), export.Format.JSONL
    )
    ended = last.status.batch.ended_at
    if last.status.batch.succeeded != len(bodies) or written.answers != len(bodies) or ended is None:
        raise SystemExit(f"promptmill: {last.status.batch.succeeded} of {len(bodies)} jobs succeeded")
    return ended.timestamp()


def until_ready(settings: Settings, count: int) -> None:
    """Until all workers are seen in the database."""
    with open_database(settings) as database:
        while True:
            with database.read() as connection:
                if len(stored_workers.live(connection, database_now(connection))) >= count:
                    return
            time.sleep(_LOOK_S)


def cpu_of(stack: Stack) -> dict[str, float]:
    """CPU seconds of this program, and of its workers together."""
    workers = [psutil.Process(child.process.pid).cpu_times() for child in stack.workers]
    return {
        "submit, watch, export": time.process_time(),
        "workers": sum(each.user + each.system for each in workers),
    }


if __name__ == "__main__":
    main()
