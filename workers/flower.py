"""How our Flower is set up: its defaults, its password, its metrics. `celery -A workers.app flower` comes through here.

The idea to keep in mind: Flower is a view of what workers tell, the database is the truth. It holds ids and names and
no prompt, it forgets the oldest task when it has enough, and it may be lost. Each default here gives way to a
FLOWER_… variable, a flowerconfig.py and an option, in this order of strength, as Flower's own do.
"""

import os
from pathlib import Path
from typing import Any, Final

from celery.events.state import Task
from celery.signals import import_modules
from flower import urls  # type: ignore[import-untyped]  # it ships no types
from flower.events import EventsState  # type: ignore[import-untyped]  # it ships no types
from flower.options import options  # type: ignore[import-untyped]  # it ships no types
from flower.views import BaseHandler  # type: ignore[import-untyped]  # it ships no types
from flower.views.monitor import Metrics  # type: ignore[import-untyped]  # it ships no types
from tornado.web import authenticated

from promptmill.errors import ConfigurationError
from promptmill.settings import LOOPBACK

MOST_TASKS: Final = 10_000
"""Tasks that Flower remembers: 63 MB beside its own 61 after a million events (50,000: 271 MB, and 630 as they are
saved). What is older is in the database."""
SAVE_EVERY_MS: Final = 60_000
"""So much a Flower that is killed forgets. It answers nobody while it saves: 0.2 s for 10,000 tasks, 2.3 s for 50,000."""
OFFLINE_FOR_S: Final = 300
"""After this a worker that is gone leaves the pages and the metrics: each start has a name of its own."""
COLUMNS: Final = "uuid,state,args,received,runtime,worker"
"""Of the task list. Every task has the same name, so that is left out; `args` holds batch, model, lane and attempt."""
PASSWORD_FILE: Final = "FLOWER_BASIC_AUTH_FILE"  # noqa: S105  # the name of a variable
_NO_PASSWORD: Final = (
    "FLOWER_BASIC_AUTH: Flower is to listen on {where}, where others reach it; set name:password "
    f"(or {PASSWORD_FILE}, a file that holds it), or --address=127.0.0.1"
)


def set_up(home: Path) -> None:
    """Change Flower's defaults, before its command reads what the person has set.

    Args:
        home: the data folder, where the state is kept over a restart.

    Raises:
        ConfigurationError: the file with the password cannot be read, or holds none.
    """
    options.address = "127.0.0.1"
    options.max_tasks = MOST_TASKS
    options.purge_offline_workers = OFFLINE_FOR_S
    options.tasks_columns = COLUMNS
    options.persistent = _keep_to_ourselves(home)
    options.db = str(home.resolve() / "flower")
    options.state_save_interval = SAVE_EVERY_MS
    if file := os.environ.get(PASSWORD_FILE):
        options.basic_auth = _passwords(Path(file))
    _change_pages()
    import_modules.connect(_check)


def _passwords(file: Path) -> list[str]:
    try:
        found = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        why = f"{PASSWORD_FILE}: {file} cannot be read ({type(error).__name__})"
        raise ConfigurationError(why, setting=PASSWORD_FILE) from error
    if not found:
        raise ConfigurationError(f"{PASSWORD_FILE}: {file} is empty", setting=PASSWORD_FILE)
    return found


def _keep_to_ourselves(home: Path) -> bool:
    """Whether the state can be kept there. It is a pickle, which runs code as it is read: nobody else may write it."""
    os.umask(0o077)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(home, os.W_OK | os.X_OK)


def _check(**_: Any) -> None:
    """Called by Flower when it has read its options and before it listens; Celery lets only SystemExit through."""
    try:
        check_access(
            where="a socket file" if options.unix_socket else options.address,
            passwords=options.basic_auth or [],
            signs_in=bool(options.auth),
        )
    except ConfigurationError as error:
        raise SystemExit(f"promptmill: {error}") from None


def check_access(*, where: str, passwords: list[str], signs_in: bool) -> None:
    """Whether Flower may listen there.

    Raises:
        ConfigurationError: others would reach it without a password, or a password can never be given.
    """
    for each in passwords:
        # Flower compares with a function that takes ASCII alone.
        if not each.isascii() or not all(each.partition(":")):
            raise ConfigurationError(
                "FLOWER_BASIC_AUTH: it must be name:password, in ASCII", setting="FLOWER_BASIC_AUTH"
            )
    loopback = where in LOOPBACK - {""}  # Flower listens everywhere when told nothing
    if not passwords and not signs_in and not loopback:
        raise ConfigurationError(
            _NO_PASSWORD.format(where=where or "every address"), setting="FLOWER_BASIC_AUTH"
        )


class GuardedMetrics(Metrics):  # type: ignore[misc]  # Flower ships no types
    """/metrics names workers and tells of their work: it asks for the password like every page."""

    @authenticated
    async def get(self) -> None:
        """The metrics, to who may see them."""
        await super().get()


class JobTask(Task):
    """A task as Flower sees it. Its id is the job's, so it may begin again after it has ended: a person retried it."""

    def event(  # type: ignore[override]  # its last four parameters are for speed, and nobody passes them
        self,
        type_: str | None,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: dict[str, Any] | None = None,
        **tools: Any,
    ) -> str | None:
        """Take in one event. Celery takes what is of an earlier stage than the end for a latecomer, and ignores it."""
        if self.ready and type_ == "received" and (timestamp or 0) > (self.timestamp or 0):
            self.state = "PENDING"
        return super().event(type_, timestamp, local_received, fields, **tools)


def _change_pages() -> None:
    urls.handlers[:] = [
        (route[0], GuardedMetrics) if isinstance(route, tuple) and route[1] is Metrics else route
        for route in urls.handlers
    ]
    EventsState.Task = JobTask
    shown = BaseHandler.write_error

    def write_error(handler: Any, status_code: int, **facts: Any) -> None:
        """Flower's page of an error of its own shows a traceback, to anybody."""
        if status_code == 500:  # noqa: PLR2004  # as HTTP has it
            handler.set_status(500)
            handler.finish("Flower has failed here; its log says more.")
        else:
            shown(handler, status_code, **facts)

    BaseHandler.write_error = write_error
