"""Sealing: which columns are encrypted at rest, where a database has keys.

The one idea: the keys belong to a database's dialect, which SQLAlchemy hands to every column type. So whoever
speaks to the columns needs to know nothing; the few statements that go around SQLAlchemy's types ask here.
"""

from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, Engine, String, Text, func, select, type_coerce
from sqlalchemy.types import TypeDecorator

from promptmill.encryption import FERNET, SEALED, Vault, opened, sealed
from promptmill.errors import ConfigurationError
from promptmill.store.columns import JsonText, PlainText

_VAULTS: WeakKeyDictionary[Dialect, Vault] = WeakKeyDictionary()


class SealedText(PlainText):
    """Text that nobody reads without a key."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace what cannot be stored, and seal."""
        return seal(dialect, super().process_bind_param(value, dialect))

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Open."""
        return unseal(dialect, value)


class SealedWord(SealedText):
    """The same for a column that was made for words."""

    impl = String  # type: ignore[assignment]  # every one of SQLAlchemy's texts is a String
    cache_ok = True


class SealedJson(JsonText):
    """A JSON value that nobody reads without a key."""

    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """As text, sealed."""
        return seal(dialect, super().process_bind_param(value, dialect))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Open and parse."""
        return super().process_result_value(unseal(dialect, value), dialect)


class KeyedWord(TypeDecorator[str]):
    """A word that is looked up and never read: a hash under the key, where there is one."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Hash, once; what is hashed already is stored as it is."""
        vault = vault_of(dialect)
        return value if vault is None or value is None else vault.keyed(value)


def give_keys(engine: Engine, vault: Vault | None) -> None:
    """From now on what goes through this engine is sealed."""
    if vault is not None:
        _VAULTS[engine.dialect] = vault


def vault_of(dialect: Dialect) -> Vault | None:
    """The keys of a database; None where it has none."""
    return _VAULTS.get(dialect) if _VAULTS else None


def seal(dialect: Dialect, text: str | None) -> str | None:
    """A text as it is stored in this database."""
    return None if text is None else sealed(vault_of(dialect), text)


def unseal(dialect: Dialect, stored: str | None) -> str | None:
    """The text that was stored.

    Raises:
        ConfigurationError: no key opens it.
    """
    if stored is None or not stored.startswith(SEALED):
        return stored
    return opened(vault_of(dialect), stored)


def unseal_if_possible(dialect: Dialect, stored: str | None) -> str | None:
    """The text that was stored; None also where no key opens it."""
    try:
        return unseal(dialect, stored)
    except ConfigurationError:
        return None


def check_keys(conn: Connection) -> bool:
    """Try the keys on the newest batch, so that a program with wrong ones writes nothing.

    Without keys the oldest is looked at too. With keys, False says that they do not open the oldest that is encrypted:
    then it is that batch alone which cannot be read.

    Raises:
        ConfigurationError: it is sealed, and no key opens it.
    """
    from promptmill.store.tables import batch  # noqa: PLC0415  # whose columns are of the types above

    stored = type_coerce(batch.c.shared, Text)
    start = func.substr(stored, 1, len(SEALED) + len(FERNET))
    newest, oldest = batch.c.created_at.desc(), batch.c.created_at
    if vault_of(conn.dialect) is None:
        for first in (newest, oldest):  # the few letters by which a sealed text is known
            unseal(conn.dialect, conn.scalar(select(start).order_by(first).limit(1)))
        return True
    unseal(conn.dialect, conn.scalar(select(stored).order_by(newest).limit(1)))
    oldest_sealed = select(stored).where(start == SEALED + FERNET).order_by(oldest).limit(1)
    try:
        unseal(conn.dialect, conn.scalar(oldest_sealed))
    except ConfigurationError:
        return False
    return True
