"""`promptmill encrypt`."""

from typing import TYPE_CHECKING, Annotated

import typer

from producers.cli.exits import Exit
from producers.cli.options import AsJson
from producers.cli.printing import log_to_stderr, put, put_json, say

if TYPE_CHECKING:
    from producers.encrypting import Encrypted

_NAMED = 5
"""Batches that are named of those that hold what no key opens."""
_OFTEN = 100_000
"""Rows between two signs of progress."""


def encrypt(
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Only print a fresh key, for the file of keys.")
    ] = False,
    decrypt: Annotated[
        bool, typer.Option("--decrypt", help="Store everything readable again, to give up the keys.")
    ] = False,
    key_ids: Annotated[
        bool,
        typer.Option("--key-ids", help="Only print the ids of the keys in the file, the first one first."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring all stored prompts and answers under the first key of PROMPTMILL_ENCRYPTION_KEYS_FILE.

    What is written from now on is encrypted without it. Needed once for what was stored before, and when a key is
    replaced, before the old one leaves the file. Workers may run meanwhile.
    """
    if new_key + decrypt + key_ids > 1:
        raise typer.BadParameter("take one of --new-key, --decrypt and --key-ids")
    if new_key:
        from promptmill.encryption import new_key as made  # noqa: PLC0415  # it takes 30 ms

        key = made()
        put_json({"new_key": key}) if as_json else put(key)
        return
    from producers import encrypting  # noqa: PLC0415  # the database layer takes 0.5 s

    if key_ids:
        ids = encrypting.key_ids()
        put_json({"key_ids": ids}) if as_json else put("\n".join(ids))
        return
    from producers.place import is_untouched, where  # noqa: PLC0415  # likewise
    from promptmill import settings  # noqa: PLC0415  # likewise

    log_to_stderr()
    told = settings.load()
    nothing_here = is_untouched(told)
    done = encrypting.encrypt(plain=decrypt, settings=told, progress=_say_now_and_then)
    if as_json:
        put_json({"rewritten": dict(done.rewritten), "unopened": dict(done.unopened)})
    elif nothing_here:
        say(f"nothing to do: nothing is stored{where(told)}")
    else:
        _say_what_was_done(done, decrypt=decrypt)
    if done.unopened:
        raise typer.Exit(Exit.FAILURE)


def _say_what_was_done(done: "Encrypted", *, decrypt: bool) -> None:
    from producers.wording import several  # noqa: PLC0415  # likewise

    if rows := sum(done.rewritten.values()):
        how = ("is", "are")[rows > 1], "readable again" if decrypt else "under the first key now"
        say(f"{several(rows, 'row')} {' '.join(how)}")
    elif not done.unopened:
        say("nothing to do: all of it is so already")
    if done.unopened:
        rows = sum(done.unopened.values())
        stay = "which stays as it is" if rows == 1 else "which stay as they are"
        most = sorted(done.unopened.items(), key=lambda each: (-each[1], each[0]))
        named = [f"{name} ({lost:,})" for name, lost in most[:_NAMED]]
        others = [f"{len(most) - _NAMED:,} others"] if len(most) > _NAMED else []
        say(f"no key opens {several(rows, 'row')}, {stay}: {', '.join([*named, *others])}")
        say("put their key into the file too; if it is lost: promptmill purge BATCH --what everything")


def _say_now_and_then(table: str, rows: int) -> None:
    if rows % _OFTEN == 0:
        say(f"{table}: {rows:,} rows looked at")
