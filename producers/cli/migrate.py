"""`promptmill migrate`."""

from producers.cli.printing import say


def migrate() -> None:
    """Make the tables of the database, or bring them to this version. Several at once are fine."""
    from promptmill import settings  # noqa: PLC0415  # 0.2 s that --help does not need
    from promptmill.logs import scrub  # noqa: PLC0415  # likewise
    from promptmill.store.database import Database  # noqa: PLC0415  # likewise

    url = settings.load().effective_database_url
    database = Database.open(url)
    try:
        database.migrate()
    finally:
        database.close()
    say(f"{scrub(url)} is at this version")
