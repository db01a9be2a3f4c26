"""Encrypting what is stored already: after keys were given for the first time, were replaced, or are to be given up.

The one idea: short transactions, so that workers go on meanwhile; interrupted, it is asked for again.
"""

import time
from collections.abc import Callable, Mapping

from producers.purge import forget
from promptmill.encryption import SETTING
from promptmill.errors import ConfigurationError
from promptmill.runtime import open_database
from promptmill.settings import Settings, load
from promptmill.store import resealing
from promptmill.store.database import Database
from promptmill.store.resealing import Target

_ROWS = 100

Progress = Callable[[str, int], object]


def encrypt(
    *, plain: bool = False, settings: Settings | None = None, progress: Progress | None = None
) -> Mapping[str, int]:
    """Bring every stored text under the first key; how many rows of each table were rewritten.

    Args:
        plain: store them as they are instead, before the keys are given up.
        settings: read from the environment when None.
        progress: called with a table and the rows gone through.

    Raises:
        ConfigurationError: there is no file of keys, or no key opens a text.
    """
    settings = settings or load()
    if settings.encryption_keys_file is None:
        raise ConfigurationError(
            f"{SETTING} is not set: name a file of keys; make a key with: promptmill encrypt --new-key",
            setting=SETTING,
        )
    with open_database(settings) as database:
        changed = {
            each.name: _rewrite(database, each, plain=plain, progress=progress)
            for each in resealing.targets()
        }
        forget(database)
    return changed


def _rewrite(database: Database, target: Target, *, plain: bool, progress: Progress | None) -> int:
    after: str | None = ""
    seen = changed = 0
    while after is not None:
        began = time.monotonic()
        with database.begin() as connection:
            after, some = resealing.page(connection, target, after, _ROWS, plain=plain)
        changed += some
        seen += _ROWS
        if progress:
            progress(target.name, seen)
        if some and database.dialect == "sqlite":
            time.sleep(time.monotonic() - began)  # others write as long as we did
    return changed
