"""One look at everything the page shows, through what the commands ask too.

The one idea: it holds one database and one line to the limiter open and looks when it is told to, from one thread.
"""

from contextlib import ExitStack
from typing import Self

from promptmill.runtime import open_database
from promptmill.settings import Settings
from promptmill.store.database import database_now


class Figures:
    """What there is to see; enter it to open the database."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        self._database = self._resources.enter_context(open_database(self.settings))
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def check(self) -> None:
        """Ask the database for the time.

        Raises:
            Unavailable: it does not answer.
        """
        with self._database.read() as connection:
            database_now(connection)
