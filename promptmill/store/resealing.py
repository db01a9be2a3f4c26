"""Resealing: what is stored is brought under the first key, or under none, page by page, while work goes on.

The one idea: a row is changed only if it still holds what was read, so nothing that is written meanwhile is undone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import Connection, Text, and_, column, select, table, update

from promptmill.encryption import SEALED, Vault, opened, sealed
from promptmill.store.sealing import KeyedWord, SealedJson, SealedText, vault_of
from promptmill.store.tables import METADATA


@dataclass(frozen=True)
class Target:
    """A table and its sealed columns; those of `keyed` are only ever hashed."""

    name: str
    key: str
    sealed: tuple[str, ...]
    keyed: tuple[str, ...]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """All columns that may change."""
        return (*self.sealed, *self.keyed)


def targets() -> Sequence[Target]:
    """Every table that has a sealed column."""
    found = []
    for each in METADATA.sorted_tables:
        (key, *_) = each.primary_key.columns.keys()
        of_kind = {
            kinds: tuple(one.name for one in each.columns if isinstance(one.type, kinds))
            for kinds in ((SealedText, SealedJson), (KeyedWord,))
        }
        if any(of_kind.values()):
            found.append(Target(each.name, key, *of_kind.values()))
    return found


def page(conn: Connection, target: Target, after: str, size: int, *, plain: bool) -> tuple[str | None, int]:
    """Rewrite the rows after a key; the last key seen (None at the end), and how many rows were changed.

    Args:
        conn: a transaction that writes, of a database that has keys.
        target: the table.
        after: a key, or an empty text.
        size: rows a page.
        plain: store them as they are, instead of under the first key.

    Raises:
        ConfigurationError: no key opens a row.
    """
    # By names alone: types would seal and open what goes through.
    raw = table(target.name, *(column(each, Text) for each in (target.key, *target.columns)))
    key = raw.c[target.key]
    query = select(key, *(raw.c[each] for each in target.columns))
    rows = conn.execute(query.where(key > after).order_by(key).limit(size)).all()
    changed = 0
    for row in rows:
        was = dict(zip(target.columns, row[1:], strict=True))
        if new := _rewritten(conn, target, was, plain=plain):
            is_same = and_(key == row[0], *(raw.c[each] == was[each] for each in new))
            changed += conn.execute(update(raw).where(is_same).values(new)).rowcount
    return (rows[-1][0] if len(rows) == size else None), changed


def _rewritten(
    conn: Connection, target: Target, was: Mapping[str, str | None], *, plain: bool
) -> dict[str, str]:
    """The columns that are to change."""
    vault = vault_of(conn.dialect)
    new: dict[str, str] = {}
    for name in target.sealed:
        stored = was[name]
        if stored is None or (not plain and vault and _is_current(vault, stored)):
            continue
        rewritten = sealed(None if plain else vault, opened(vault, stored))
        if rewritten != stored:
            new[name] = rewritten
    if vault is not None and not plain:
        keyed = {name: vault.keyed(word) for name in target.keyed if (word := was[name]) is not None}
        new |= {name: word for name, word in keyed.items() if word != was[name]}
    return new


def _is_current(vault: Vault, stored: str) -> bool:
    return stored.startswith(SEALED) and vault.is_current(stored)
