"""The whole thing on one machine: start what is not running, submit, wait, stop what was started.

The idea: it only puts together what exists. Run again with the same rows it finds its batch by name and goes on;
what has been answered is not asked again, because the database says so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from producers.batches import PAUSED_BY_A_PERSON, Batch
from producers.progress import view_for_terminal
from producers.stack import Say, Stack, local_stack, needs_simulator
from producers.submission import options_for, submit_with
from producers.watch import Moment
from producers.wording import several
from promptmill.claude.endpoints import identify_now
from promptmill.errors import PromptmillError
from promptmill.runtime import SIMULATED, Runtime
from promptmill.settings import Settings, load
from promptmill.states import BatchState
from promptmill.store import workers as stored_workers
from promptmill.store.database import database_now
from promptmill.store.workers import WorkerRow


class Held(PromptmillError):
    """The workers paused the batch, and only a person can help: no usable key, a spend cap."""


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
    """
    with view_for_terminal() as view:
        say, show = (view.say, view.show) if progress else (_ignore, _ignore)
        with at_work(settings or load(), workers=workers, say=say) as crew:
            submission = submit_with(
                source, options_for(**options), settings=crew.settings, simulated=crew.simulated
            )
            crew.finish(submission.batch, show)
    return submission.batch


@dataclass(slots=True)
class Crew:
    """The workers that answer a batch: those that ran already, or ours.

    Attributes:
        simulated: whether the simulated Claude answers.
    """

    stack: Stack
    count: int
    simulated: bool

    @property
    def settings(self) -> Settings:
        """The settings under which everything works."""
        return self.stack.settings

    def finish(self, batch: Batch, show: Callable[[Moment], object]) -> Moment:
        """Wait until a batch has ended, and see to it that somebody works on it.

        Raises:
            Held: only a person can help.
            StackFailed: our workers die.
        """
        moment = batch.look()
        if moment.status.batch.state is BatchState.PAUSED:
            batch.resume()
        for moment in batch.watch():
            show(moment)
            _raise_if_held(moment)
            self._look_after(moment)
        return moment

    def _look_after(self, moment: Moment) -> None:
        self.stack.look_after()
        if not self.stack.workers and not moment.workers and not moment.has_ended:
            self.stack.say("the workers that ran have gone; starting our own")
            self.start()

    def start(self) -> None:
        """Start workers of our own, and what they call where that is missing."""
        if needs_simulator(self.settings):
            self.stack.use_simulator()
            self.stack.say(
                "no key is set, so a simulated Claude answers: nothing is sent to Anthropic and nothing is paid"
            )
        self.stack.start_workers(self.count)


@contextmanager
def at_work(settings: Settings, *, workers: int, say: Say) -> Iterator[Crew]:
    """Somebody at work on this database for the length of the block; what was started is stopped at its end."""
    with local_stack(settings, say) as stack:
        alive = _who_is_there(settings)
        if alive:
            hosts = ", ".join(sorted({worker.host for worker in alive}))
            say(f"using {several(len(alive), 'worker process', 'worker processes')} running on {hosts}")
            yield Crew(stack, workers, simulated=alive[0].endpoint == SIMULATED)
            return
        crew = Crew(stack, workers, simulated=False)
        crew.start()
        crew.simulated = identify_now(stack.settings.claude.base_url).simulated
        yield crew


def _who_is_there(settings: Settings) -> list[WorkerRow]:
    """The live workers that call the endpoint we would call."""
    with Runtime.open(settings) as runtime:
        wanted = SIMULATED if needs_simulator(settings) else runtime.endpoint_name
        with runtime.database.read() as connection:
            alive = stored_workers.live(connection, database_now(connection))
    return [worker for worker in alive if worker.endpoint == wanted]


def _raise_if_held(moment: Moment) -> None:
    batch = moment.status.batch
    if batch.state is BatchState.PAUSED and batch.reason != PAUSED_BY_A_PERSON:
        raise Held(f"{batch.name} is held: {batch.reason}; {_advice(str(batch.reason))}, then run it again")


def _advice(reason: str) -> str:
    return "correct ANTHROPIC_API_KEY" if "key" in reason else "put that right"


def _ignore(_: object) -> None:
    pass
