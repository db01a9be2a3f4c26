"""`promptmill encrypt`."""

from typing import Annotated

import typer

from producers.cli.options import AsJson
from producers.cli.printing import log_to_stderr, put, put_json, say

_OFTEN = 100_000
"""Rows between two signs of progress."""


def encrypt(
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Only print a fresh key, for the file of keys.")
    ] = False,
    decrypt: Annotated[
        bool, typer.Option("--decrypt", help="Store everything readable again, to give up the keys.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring all stored prompts and answers under the first key of PROMPTMILL_ENCRYPTION_KEYS_FILE.

    What is written from now on is encrypted without it. Needed once for what was stored before, and when a key is
    replaced, before the old one leaves the file. Workers may run meanwhile.
    """
    if new_key:
        from promptmill.encryption import new_key as made  # noqa: PLC0415  # it takes 30 ms

        put(made())
        return
    from producers.encrypting import encrypt as rewrite  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.wording import several  # noqa: PLC0415  # likewise

    log_to_stderr()
    changed = rewrite(plain=decrypt, progress=_say_now_and_then)
    if as_json:
        put_json({"rewritten": dict(changed)})
        return
    rows = sum(changed.values())
    how = "are readable again" if decrypt else "are under the first key now"
    say(f"{several(rows, 'row')} {how}" if rows else "nothing to do: all of it is so already")


def _say_now_and_then(table: str, rows: int) -> None:
    if rows % _OFTEN == 0:
        say(f"{table}: {rows:,} rows looked at")
