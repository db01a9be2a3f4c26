"""The whole thing on one machine: start what is not running, submit, wait, stop what was started.

The idea: it only puts together what exists. Run again with the same rows it finds its batch by name and goes on;
what has been answered is not asked again, because the database says so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from producers.admitting import admission_view
from producers.batches import Batch
from producers.progress import view_for_terminal
from producers.stack import Say, Stack, local_stack, needs_simulator
from producers.submission import Submission, options_for, submit_with
from producers.watch import Moment
from producers.wording import several
from promptmill.errors import BudgetExceeded, PromptmillError
from promptmill.intake.options import SubmitOptions
from promptmill.intake.survey import Progress
from promptmill.runtime import SIMULATED, Runtime
from promptmill.settings import Settings, load
from promptmill.states import BatchState
from promptmill.store import workers as stored_workers
from promptmill.store.database import database_now
from promptmill.store.workers import WorkerRow

DRAINING = (
    "no new call begins; those in flight finish first "
    "(Ctrl-C again cuts them: they are asked again, and may be billed twice)"
)
NOT_OURS = "the workers that ran before go on with it"


class Held(PromptmillError):
    """The workers paused the batch, and only a person can help: no usable key, a spend limit."""


def run(
    source: object,
    *,
    workers: int = 1,
    progress: bool = True,
    settings: Settings | None = None,
    **options: Any,
) -> Batch:
    """Submit, have it answered on this machine, and come back when it has ended.

    Starts an embedded Redis and worker processes unless workers of this database run already, and stops what it
    started. Without a key, and with no ANTHROPIC_BASE_URL, the simulated Claude answers.

    Args:
        source: as for `submit`.
        workers: how many worker processes to start.
        progress: show it on standard error.
        settings: read from the environment when None.
        **options: as for `submit`.

    Raises:
        InvalidInput: as `submit`.
        Held: the batch waits for a person; run it again afterwards.
        BudgetExceeded: the budget is used up; what was answered is kept. Run it again with a larger one.
    """
    settings = settings or load()
    with admission_view() if progress else nullcontext() as told:
        batch = submit_for_here(source, options_for(**options), settings=settings, progress=told).batch
    with view_for_terminal() as view:
        say, show = (view.say, view.show) if progress else (_ignore, _ignore)
        moment = finish(batch, workers=workers, say=say, show=show)
    if moment.stopped_by_budget:
        raise BudgetExceeded(moment.hint or "")
    if moment.is_held:
        raise Held(moment.hint or "")
    return batch


def submit_for_here(
    source: object, options: SubmitOptions, *, settings: Settings, progress: Progress | None = None
) -> Submission:
    """Submit what workers of this machine will answer: with nothing set, the simulated Claude."""
    simulated = needs_simulator(settings) or None
    return submit_with(source, options, settings=settings, simulated=simulated, progress=progress)


def finish(batch: Batch, *, workers: int, say: Say, show: Callable[[Moment], object]) -> Moment:
    """See to it that a batch is worked on until it has ended or stopped; starts nothing for one that has ended.

    Its budget stops it, or the want of a key, or a spend limit; what is in flight then ends first.

    Args:
        batch: which.
        workers: how many worker processes to start where none runs.
        say: told what is started.
        show: called with every moment; the last one is also what comes back.

    Raises:
        StackFailed: our workers die.
    """
    moment = batch.look()
    if moment.has_ended:
        show(moment)
        return moment
    if moment.status.batch.state is BatchState.PAUSED:
        batch.resume()
    with at_work(batch.settings, workers=workers, say=say) as crew, _told(crew, batch):
        for moment in batch.watch():
            show(moment)
            if moment.stopped_by_budget or moment.is_held:
                return moment
            crew.look_after(moment)
    return moment


@contextmanager
def _told(crew: "Crew", batch: Batch) -> Iterator[None]:
    """Say at Ctrl-C what happens now, before it takes its time."""
    try:
        yield
    except KeyboardInterrupt:
        crew.stack.say(f"\n{batch.name}: {DRAINING if crew.stack.workers else NOT_OURS}")
        crew.stack.has_told = True
        raise


@dataclass(slots=True)
class Crew:
    """Who works: those that ran already, or ours."""

    stack: Stack
    count: int

    def look_after(self, moment: Moment) -> None:
        """Replace workers that have gone, ours or not.

        Raises:
            StackFailed: ours die as soon as they are started.
        """
        self.stack.look_after()
        if not self.stack.workers and not moment.workers and not moment.has_ended:
            self.stack.say("the workers that ran have gone; starting our own")
            self.start()

    def start(self) -> None:
        """Start workers of our own, and what they call where that is missing."""
        if needs_simulator(self.stack.settings):
            self.stack.use_simulator()
            self.stack.say(
                "no key is set, so a simulated Claude answers: nothing is sent to Anthropic and nothing is paid"
            )
        self.stack.start_workers(self.count)


@contextmanager
def at_work(settings: Settings, *, workers: int, say: Say) -> Iterator[Crew]:
    """Somebody at work on this database for the length of the block; what was started is stopped at its end."""
    with local_stack(settings, say) as stack:
        crew = Crew(stack, workers)
        if alive := _who_is_there(settings):
            hosts = ", ".join(sorted({worker.host for worker in alive}))
            say(f"using {several(len(alive), 'worker process', 'worker processes')} running on {hosts}")
        else:
            crew.start()
        yield crew


def _who_is_there(settings: Settings) -> list[WorkerRow]:
    """The live workers that call the endpoint we would call."""
    with Runtime.open(settings) as runtime:
        wanted = SIMULATED if needs_simulator(settings) else runtime.endpoint_name
        with runtime.database.read() as connection:
            alive = stored_workers.live(connection, database_now(connection))
    return [worker for worker in alive if worker.endpoint == wanted]


def _ignore(_: object) -> None:
    pass
