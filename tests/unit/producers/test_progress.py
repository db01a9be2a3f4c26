"""What people are shown while a batch goes on, and when it has ended."""

from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from producers import tables
from producers.failed import Failures, failure_lines
from producers.folding import Fold
from producers.listing import Listed
from producers.live import LiveView, live_view
from producers.progress import Lines, line_of, view_for_terminal
from producers.summary import summary_lines
from producers.watch import PATIENCE_S, Moment
from producers.wording import duration
from promptmill.retries import truncation_policy
from promptmill.states import BatchState, JobState
from promptmill.store.failures import FailureGroup
from promptmill.store.stats import BatchStatus
from tests.unit.producers.rows import batch_row

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BATCH = batch_row(
    total=300, succeeded=118, errored=2, input_tokens=1000, output_tokens=5000, cache_read_tokens=200,
    attempts=123, cost_nanos=1_234_000,
)  # fmt: skip
JOBS = dict.fromkeys(JobState, 0) | {
    JobState.SUCCEEDED: 118,
    JobState.ERRORED: 2,
    JobState.RUNNING: 50,
    JobState.PENDING: 130,
}
MOMENT = Moment(
    status=BatchStatus(batch=BATCH, jobs=JOBS, failures={"rate_limited": 1}, elapsed_s=12.0),
    workers=2,
    strangers=(),
    alone_s=0.0,
    answers_per_s=10.04,
    tokens_per_s=512.6,
    eta_s=18.0,
    bound_by="output_tokens",
)


def at(moment: Moment, **changes: Any) -> Moment:
    """The moment with other facts of its batch."""
    return replace(moment, status=replace(moment.status, batch=replace(moment.status.batch, **changes)))


def test_a_line_is_key_value_pairs_that_a_machine_can_search() -> None:
    words = line_of(MOMENT).split()

    assert words[0] == "progress"
    facts = dict(word.split("=", 1) for word in words[1:])
    assert facts["done"] == "120/300"
    assert facts["running"] == "50"
    assert facts["answers_per_s"] == "10.0"
    assert facts["input_tokens"] == "1200"
    assert facts["cost_usd"] == "0.001234000"
    assert facts["refused_429"] == "1"
    assert facts["bound_by"] == "output_tokens"
    assert facts["eta_s"] == "18"
    assert facts["simulated"] == "true"


def test_lines_come_every_few_seconds_and_at_every_change_of_state() -> None:
    written: list[str] = []
    lines = Lines(written.append, every_s=3600)

    lines.show(MOMENT)
    lines.show(MOMENT)
    lines.show(at(MOMENT, state=BatchState.PAUSED, reason="paused by a person"))

    assert len(written) == 2
    assert "state=paused" in written[1]


def test_a_stream_that_is_no_terminal_gets_plain_lines() -> None:
    stream = StringIO()

    with view_for_terminal(stream) as view:
        view.show(MOMENT)
        view.say("and a word")

    assert stream.getvalue().splitlines()[1] == "and a word"
    assert "\x1b" not in stream.getvalue()


def test_on_a_terminal_everything_is_drawn_in_place() -> None:
    stream = StringIO()

    with live_view(stream) as view:
        assert isinstance(view, LiveView)
        view.show(MOMENT)
        view.show(at(MOMENT, state=BatchState.ENDED))

    drawn = stream.getvalue()
    for words in ("sums", "simulated Claude", "120 of 300", "10.0 answers/s", "bound by output tokens"):
        assert words in drawn
    assert Console(file=stream).is_terminal is False


def shown(*moments: Moment) -> list[list[str]]:
    """What a terminal of 80 columns shows at each moment, line by line."""
    console = Console(file=StringIO(), width=80, force_terminal=True)
    live = Live(console=console, auto_refresh=False)
    view, drawn = LiveView(live), []
    for moment in moments:
        view.show(moment)
        lines = console.render_lines(live.get_renderable(), pad=False)
        drawn.append(["".join(segment.text for segment in line) for line in lines])
    return drawn


def test_a_terminal_of_80_columns_breaks_no_phrase() -> None:
    large = dict.fromkeys(JobState, 0) | {JobState.SUCCEEDED: 998_118, JobState.PENDING: 1_882}
    moment = at(
        replace(MOMENT, answers_per_s=1234.5, tokens_per_s=2_345_678, eta_s=50_000, resting=(12, 83.0)),
        name="an-evaluation-of-every-answer-there-is", total=1_000_000, succeeded=998_118, cost_nanos=48 * 10**10,
        input_tokens=123_456_789, output_tokens=234_567_890, unpriced_attempts=44,
    )  # fmt: skip

    [lines] = shown(
        replace(moment, status=replace(moment.status, jobs=large, failures={"rate_limited": 9999}))
    )

    assert all(len(line) <= 80 for line in lines)
    for phrase in (
        "2 workers", "998,120 of 1,000,000  99%  13 h 53 min left", "succeeded 998,118", "1,234.5 answers/s",
        "2,345,678 tokens/s", "9,999 refused (429)", "bound by output tokens", "234,567,890 out",
        "$480.000000000 and 44 attempts of unknown cost", "the next goes on in 1 min 23 s",
    ):  # fmt: skip
        assert any(phrase in line for line in lines), phrase


def test_the_figures_stay_where_they_are_while_words_come_and_go() -> None:
    bound, free = MOMENT, replace(MOMENT, bound_by=None)
    tired = replace(free, resting=(4, 23.4))

    heights = [len(lines) for lines in shown(free, bound, tired, free)]

    assert heights == [5, 5, 6, 6]
    assert len({tuple(line[:9] for line in lines[:2]) for lines in shown(free, bound, tired)}) == 1


def test_all_but_a_few_is_not_yet_everything() -> None:
    [lines] = shown(at(MOMENT, total=5000, succeeded=4992))

    assert "4,994 of 5,000  99%" in lines[1]


def test_a_paused_batch_says_how_to_go_on() -> None:
    hint = at(MOMENT, state=BatchState.PAUSED, reason="no usable key").hint

    assert hint is not None
    assert "no usable key" in hint
    assert "promptmill resume sums" in hint


def test_a_batch_that_nobody_works_on_says_so_after_a_while() -> None:
    alone = replace(MOMENT, workers=0, alone_s=1.0)

    assert alone.hint is None
    hint = replace(alone, alone_s=PATIENCE_S).hint
    assert hint is not None
    assert "promptmill up" in hint


def test_workers_that_call_another_claude_are_named() -> None:
    hint = replace(MOMENT, workers=0, alone_s=PATIENCE_S, strangers=("https://api.anthropic.com",)).hint

    assert hint is not None
    assert "https://api.anthropic.com" in hint


def a_group(jobs: int, kind: str, message: str | None, **facts: Any) -> FailureGroup:
    known: dict[str, Any] = {"state": JobState.ERRORED, "status": 400, "type": "invalid_request_error"}
    sample = {"code": None, "custom_id": "row-3", "attempts": 1, "message": message, "request_id": "req_9"}
    return FailureGroup(jobs=jobs, kind=kind, **{**known, **sample, **facts})


def test_a_group_without_an_example_is_named_all_the_same() -> None:
    failures = Failures(groups=[a_group(2, "other", None, custom_id=None, status=None, type=None)])

    assert "not answered: 2 other\n  do: " in "\n".join(summary_lines(at(MOMENT, total=2).status, failures))


def test_the_summary_names_answers_failures_tokens_cost_and_429s() -> None:
    ended = at(MOMENT, state=BatchState.ENDED, total=120)
    failures = Failures(groups=[a_group(2, "prompt_rejected", "too\nlong")])

    text = "\n".join(summary_lines(ended.status, failures))

    assert "118 answers of 120 prompts in 12.0 s (10.0 a second), from the simulated\n  Claude" in text
    assert (
        "not answered: 2 prompt_rejected (400 invalid_request_error), as row-3 (1\n"
        "      attempt, req_9): too long\n"
        "  do: the API refuses this request as it is"
    ) in text
    assert "1,200 in, 5,000 out" in text
    assert "$0.001234000 (nothing was paid: simulated)" in text
    assert "123 attempts, 1 refused with 429" in text


def test_refusals_and_answers_that_were_cut_off_are_named_with_what_to_do() -> None:
    failures = Failures(not_whole={"max_tokens": 5, "refusal": 1, "pause_turn": 2})

    text = "\n".join(summary_lines(MOMENT.status, failures))

    assert "5 answers were cut off at max_tokens\n  do: " in text
    assert "a higher --max-tokens" in " ".join(text.split())
    assert "1 answer is a refusal\n  do: " in text
    assert "2 answers ended with pause_turn\n" in text


def test_advice_knows_whether_cut_answers_were_asked_for_again_already() -> None:
    batch = replace(MOMENT.status.batch, options=truncation_policy(8000))

    [_, advice] = failure_lines(Failures(not_whole={"max_tokens": 5}), batch)

    assert "a higher --ask-again-up-to" in advice
    assert "--max-tokens" not in advice


def test_what_was_canceled_says_how_it_is_taken_up_again() -> None:
    lines = [*failure_lines(Failures(), replace(MOMENT.status.batch, canceled=3))]

    assert lines[0] == "not answered: 3 canceled"
    assert "promptmill retry sums --only canceled" in lines[1]


def test_jobs_that_rest_after_failures_are_told_with_when_they_go_on() -> None:
    moment = replace(MOMENT, bound_by=None, resting=(4, 23.4))

    assert "resting   4 jobs after failures, the next goes on in 23.4 s" in tables.status(moment)
    assert "resting=4 next_in_s=23" in line_of(moment)


def test_lists_are_wrapped_at_eighty_columns() -> None:
    kinds = ("connection_failed", "interrupted", "key_rejected", "lost", "overloaded", "rate_limited")
    status = replace(MOMENT.status, failures=dict.fromkeys(kinds, 12_345))

    told = summary_lines(status, Failures())
    shown = tables.status(replace(MOMENT, status=status)).splitlines() + told

    assert all(len(line) <= 80 for line in shown)
    assert any(line.startswith("          ") for line in shown)


def test_advice_hints_and_reasons_are_wrapped_at_words_and_a_command_stays_whole() -> None:
    failures = Failures(groups=[a_group(2, "server_failed", "the server said no " * 6)])
    held = at(replace(MOMENT, failures=failures), state=BatchState.PAUSED, reason="no key is usable " * 4)

    shown = [*tables.status(held).splitlines(), *summary_lines(held.status, failures)]

    assert all(len(line) <= 80 for line in shown)
    assert "      promptmill retry sums --only server_failed; if it goes on, send the" in shown


def test_a_list_fits_a_terminal_and_names_every_run_of_a_schedule_in_one_line() -> None:
    run = batch_row(id="batch_" + "0" * 26, name="tick-2026-11-23-1430", succeeded=9, total=9, cost_nanos=1)
    listed = [Listed(run, Fold("tick", more=41)), Listed(replace(run, name="mine", simulated=False))]

    [head, newest, older, mine, told] = tables.batches(listed, 80).splitlines()

    assert all(len(line) <= 80 for line in (head, newest, older, mine, told))
    assert head.split()[-2:] == ["USD", "CREATED"]
    assert "0.000000001*" in newest
    assert older == "  and 41 older runs of schedule tick"
    assert "*" not in mine
    assert told == "* answered by a simulated Claude: nothing was paid"
    assert run.id in tables.batches(listed)


def test_advice_names_the_batch_it_is_about() -> None:
    batch = replace(MOMENT.status.batch, name="my batch")

    lines = [*failure_lines(Failures(groups=[a_group(1, "overloaded", None, request_id=None)]), batch)]

    assert lines == [
        "not answered: 1 overloaded (400 invalid_request_error), as row-3 (1 attempt)",
        "  do: the API was overloaded, which passes: try them again with: promptmill retry 'my batch' --only overloaded",
    ]


def test_jobs_whose_deadline_passed_say_what_they_failed_of_before() -> None:
    late = a_group(4, "overloaded", None, state=JobState.EXPIRED)

    lines = [*failure_lines(Failures(groups=[late]), MOMENT.status.batch)]

    assert lines[0].startswith("not answered: 4 expired after overloaded, as row-3")
    assert "the deadline passed first" in lines[1]


def test_a_cost_that_is_not_wholly_known_says_so() -> None:
    text = "\n".join(summary_lines(at(MOMENT, unpriced_attempts=2).status, Failures()))

    assert "and 2 attempts of unknown cost" in text


@pytest.mark.parametrize(
    ("seconds", "words"), [(4.23, "4.2 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (0, "0.0 s")]
)
def test_durations_are_said_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_limit_that_nobody_chose_says_how_to_choose_one() -> None:
    bound = "bound by  output tokens"
    assert bound in tables.status(MOMENT).splitlines()
    assert (
        f"{bound} (a default limit; set PROMPTMILL_OTPM, see promptmill\n          limits)"
        in tables.status(replace(MOMENT, bound_by_default=True))
    )
