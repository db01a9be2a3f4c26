"""Encrypting what is stored already: after keys were given for the first time, were replaced, or are to be given up.

The one idea: short transactions, so that workers go on meanwhile; interrupted, it is asked for again.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from producers.place import is_untouched
from producers.purge import forget
from promptmill.encryption import SETTING, read_vault
from promptmill.errors import ConfigurationError
from promptmill.runtime import open_database
from promptmill.settings import Settings, load
from promptmill.store import resealing
from promptmill.store.database import Database
from promptmill.store.resealing import Target

_ROWS = 100

Progress = Callable[[str, int], object]


@dataclass(frozen=True, slots=True)
class Encrypted:
    """What was done: rows that were rewritten, by table, and rows that no key opens, by batch (or schedule)."""

    rewritten: Mapping[str, int]
    unopened: Mapping[str, int]


def key_ids(settings: Settings | None = None) -> tuple[str, ...]:
    """The ids of the keys in the file, the current one first.

    Raises:
        ConfigurationError: there is no file of keys, or it holds none.
    """
    vault = read_vault(_file_of(settings or load()))
    return vault.ids if vault else ()


def encrypt(
    *, plain: bool = False, settings: Settings | None = None, progress: Progress | None = None
) -> Encrypted:
    """Bring every stored text under the first key; what no key opens is left as it is.

    Args:
        plain: store them as they are instead, before the keys are given up.
        settings: read from the environment when None.
        progress: called with a table and the rows gone through.

    Raises:
        ConfigurationError: there is no file of keys, or no key opens the newest batch.
    """
    settings = settings or load()
    read_vault(_file_of(settings))
    if is_untouched(settings):
        return Encrypted({each.name: 0 for each in resealing.targets()}, {})
    unopened: Counter[str] = Counter()
    with open_database(settings) as database:
        rewritten = {
            each.name: _rewrite(database, each, unopened, plain=plain, progress=progress)
            for each in resealing.targets()
        }
        forget(database)
    return Encrypted(rewritten, unopened)


def _file_of(settings: Settings) -> Path:
    if settings.encryption_keys_file is None:
        raise ConfigurationError(
            f"{SETTING} is not set: name a file of keys; make a key with: promptmill encrypt --new-key",
            setting=SETTING,
        )
    return settings.encryption_keys_file


def _rewrite(
    database: Database, target: Target, unopened: Counter[str], *, plain: bool, progress: Progress | None
) -> int:
    after: str | None = ""
    seen = changed = 0
    while after is not None:
        began = time.monotonic()
        with database.begin() as connection:
            page = resealing.page(connection, target, after, _ROWS, plain=plain)
        after, changed = page.after, changed + page.changed
        unopened.update(page.closed)
        seen += _ROWS
        if progress:
            progress(target.name, seen)
        if page.changed and database.dialect == "sqlite":
            time.sleep(time.monotonic() - began)  # others write as long as we did
    return changed
