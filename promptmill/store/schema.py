"""The version of the schema: brought up to date, or checked, by alembic from the package's own files."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text

from promptmill.errors import ConfigurationError

_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x70726F6D70746D  # "promptm": one migration at a time on Postgres


def upgrade(conn: Connection) -> None:
    """Run what is missing, inside the transaction of `conn`; others wait for its end.

    Raises:
        ConfigurationError: the schema was made by a newer version.
    """
    if conn.dialect.name == "postgresql":
        conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    config = _config()
    _refuse_newer(conn, config)
    config.attributes["connection"] = conn
    command.upgrade(config, "head")


def check(conn: Connection) -> None:
    """Raise ConfigurationError unless the schema is at the version of this program."""
    config = _config()
    _refuse_newer(conn, config)
    if _current(conn) != ScriptDirectory.from_config(config).get_current_head():
        raise ConfigurationError(
            "the database has no tables of this version yet: run `promptmill migrate`",
            setting="PROMPTMILL_DATABASE_URL",
        )


def _refuse_newer(conn: Connection, config: Config) -> None:
    current = _current(conn)
    if current is None:
        return
    try:
        ScriptDirectory.from_config(config).get_revision(current)
    except CommandError as error:
        raise ConfigurationError(
            f"the database was migrated (to {current}) by a newer version of Promptmill than this one: "
            "upgrade this one, and run `promptmill migrate` with the newest",
            setting="PROMPTMILL_DATABASE_URL",
        ) from error


def _current(conn: Connection) -> str | None:
    return MigrationContext.configure(conn).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
