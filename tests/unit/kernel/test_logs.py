"""One line a record, in JSON where it is asked for; ids on every line of a job, and of errors no text that may be a prompt."""

import asyncio
import gc
import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from promptmill import logs, unhandled
from promptmill.errors import Unavailable

PROMPT = "My diagnosis is secret"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def restored() -> Iterator[None]:
    """Logging and the hooks of the process are as they were before."""
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook, sys.unraisablehook)
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def lines(restored: None) -> Lines:
    """Everything that was logged, each line parsed; a line that is no JSON fails."""
    stream = io.StringIO()
    logs.configure(level="INFO", style="json", stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_ids_of_a_job_are_on_every_line_of_its_task_and_on_no_other(lines: Lines) -> None:
    log = logs.get_logger("promptmill.test")

    async def job(number: int) -> None:
        logs.concern(batch_id="batch_1", job_id=f"job_{number}")
        await asyncio.sleep(0)
        log.info("ours")
        logging.getLogger("somebody").warning("theirs")
        await asyncio.to_thread(log.info, "on_a_thread")

    async def jobs() -> None:
        await asyncio.gather(job(1), job(2))
        log.info("nobodys")

    asyncio.run(jobs())

    found = {(line["event"], line.get("job_id"), line.get("batch_id")) for line in lines()}
    assert found == {
        *((event, f"job_{n}", "batch_1") for event in ("ours", "theirs", "on_a_thread") for n in (1, 2)),
        ("nobodys", None, None),
    }


def test_an_error_leaves_its_type_and_place_and_not_its_words(lines: Lines) -> None:
    try:
        int(PROMPT)
    except ValueError:
        logging.getLogger("celery").exception("it broke")
        logs.get_logger("promptmill.test").exception("it_broke_too")

    for line in lines():
        assert line["error"] == "ValueError"
        assert line["said"] == ["ValueError"]
        assert "test_logs.py" in line["where"][0]
    assert PROMPT not in json.dumps(lines())


def test_what_speaks_of_servers_may_speak_and_its_causes_may_not(lines: Lines) -> None:
    error = Unavailable("redis://:hush@10.0.0.1 is away")
    error.__cause__ = ValueError(PROMPT)

    logs.get_logger("promptmill.test").error("away", exc_info=error)

    assert lines()[0]["said"] == ["Unavailable: redis://[secret]@10.0.0.1 is away", "ValueError"]


def test_a_thread_that_breaks_is_one_line_of_json(lines: Lines) -> None:
    unhandled.catch_unhandled()

    def break_off() -> None:
        raise RuntimeError(PROMPT)

    thread = threading.Thread(target=break_off, name="t-1")
    thread.start()
    thread.join()

    [line] = lines()
    assert (line["event"], line["thread"], line["error"]) == ("thread_broke", "t-1", "RuntimeError")
    assert PROMPT not in json.dumps(line)


def test_a_finalizer_that_breaks_is_one_line_of_json(lines: Lines) -> None:
    unhandled.catch_unhandled()

    class Breaking:
        def __del__(self) -> None:
            raise RuntimeError(PROMPT)

    Breaking()
    gc.collect()

    [line] = lines()
    assert (line["event"], line["error"]) == ("error_in_finalizer", "RuntimeError")
    assert PROMPT not in json.dumps(line)


def test_a_task_that_nobody_waited_for_is_one_line_of_json(lines: Lines) -> None:
    async def break_off() -> None:
        raise RuntimeError(PROMPT)

    async def main() -> None:
        unhandled.catch_on_loop(asyncio.get_running_loop())
        asyncio.create_task(break_off())  # noqa: RUF006  # that nobody keeps it is the point
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(main())

    [line] = lines()
    assert (line["what"], line["error"]) == ("Task exception was never retrieved", "RuntimeError")
    assert PROMPT not in json.dumps(line)


def test_asyncios_own_line_about_such_a_task_is_cut_before_it_shows_the_error(lines: Lines) -> None:
    async def break_off() -> None:
        raise RuntimeError(PROMPT)

    async def main() -> None:
        asyncio.create_task(break_off())  # noqa: RUF006  # likewise
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(main())

    [line] = lines()
    assert (line["event"], line["error"]) == ("Task exception was never retrieved", "RuntimeError")
    assert PROMPT not in json.dumps(line)


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_text_can_begin_a_line_of_its_own_or_move_the_cursor(style: str, restored: None) -> None:
    stream = io.StringIO()
    logs.configure(level="INFO", style=style, stream=stream)

    logging.getLogger("somebody").warning("one\r\n%s\x1b[2J", "two\u2028three\x85four")
    logs.get_logger("promptmill.test").info("event", label="one\ntwo")

    assert len(stream.getvalue().splitlines()) == 2
    assert "\x1b[2J" not in stream.getvalue()


def test_a_record_that_cannot_be_written_is_one_line_that_says_nothing_of_it(
    lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    class Silent:
        def __str__(self) -> str:
            raise RuntimeError(PROMPT)

    logging.getLogger().handlers[1:] = []  # that of pytest raises what it cannot write
    logging.getLogger("somebody").warning("count %d", PROMPT)
    logs.get_logger("promptmill.test").warning("event", thing=Silent())

    assert [(line["event"], line["logger"], line["error"]) for line in lines()] == [
        ("line_not_written", "somebody", "TypeError"),
        ("line_not_written", "promptmill.test", "RuntimeError"),
    ]
    assert PROMPT not in json.dumps(lines())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("style", ["json", "console"])
def test_secrets_are_found_however_deep_they_lie_and_errors_in_fields_keep_their_words(
    style: str, restored: None
) -> None:
    stream = io.StringIO()
    logs.configure(level="INFO", style=style, stream=stream)

    logs.get_logger("promptmill.test").info(
        "event",
        keys=["sk-ant-abcdefgh1234"],
        servers={"first": ("redis://:hush@here/0", {"second": ValueError(PROMPT)})},
        error=ValueError(PROMPT),
    )

    written = stream.getvalue()
    assert "ValueError" in written
    assert not [word for word in ("sk-ant-", "hush", PROMPT) if word in written]


def test_times_in_fields_are_written_as_such(lines: Lines) -> None:
    until = datetime(2026, 12, 1, tzinfo=UTC)

    logs.get_logger("promptmill.test").info("rests", until=until, folder=Path("/files"), kinds={"late"})

    [line] = lines()
    assert (line["until"], line["folder"], line["kinds"]) == ("2026-12-01T00:00:00+00:00", "/files", ["late"])
