"""The wiring: from Settings to the parts a process needs. Nothing below this module reads settings.

Parts are made when they are asked for, so a process that only looks at the database opens no client.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from promptmill.catalogue import Catalogue
from promptmill.encryption import read_vault
from promptmill.errors import ConfigurationError, InvalidInput
from promptmill.logs import get_logger
from promptmill.pricing import PriceBook
from promptmill.settings import Settings
from promptmill.store.database import Database

if TYPE_CHECKING:
    from promptmill.claude.client import ClaudeClient
    from promptmill.claude.endpoints import Endpoint
    from promptmill.claude.keys import Key, KeyRing, KeySource
    from promptmill.limits import Ceilings, Pool, RedisLimiter
    from promptmill.webhooks import Secrets

log = get_logger(__name__)

_KEY_LOST = (
    "its key is no longer in the file of keys: put it back, and run `promptmill encrypt`; "
    "where it is lost: promptmill purge BATCH --what everything"
)

SIMULATED = "simulated"
"""The endpoint a batch remembers when a simulator answers it, at whatever address that runs."""


@contextmanager
def open_database(settings: Settings, *, reads_texts: bool = True) -> Iterator[Database]:
    """The database of these settings, ready to be asked, closed at the end of the block.

    A SQLite file is made, or brought to this version, without a word: it belongs to this folder alone. A
    server is shared, so there somebody decides when to run `promptmill migrate`. Who neither reads nor writes texts
    of persons needs no key.

    Raises:
        ConfigurationError: a setting is wrong, nobody answers, a server's schema is of another version, workers of an
            older version run on a SQLite file, or its texts are encrypted and no key opens them.
    """
    vault = read_vault(settings.encryption_keys_file) if reads_texts else None
    if settings.database_url is None:
        _make_folder(settings.home)
    database = Database.open(settings.effective_database_url, vault)
    try:
        try:
            database.check_schema()
        except ConfigurationError:
            if database.dialect != "sqlite":
                raise
            database.migrate()
        if reads_texts and not database.check_keys():
            _say_once(_KEY_LOST)
        yield database
    finally:
        database.close()


def _make_folder(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"PROMPTMILL_HOME: {home} cannot be the data folder ({error.strerror}); name another",
            setting="PROMPTMILL_HOME",
        ) from error


@cache
def _say_once(why: str) -> None:
    log.warning("old_batch_unreadable", why=why)


@dataclass
class Surroundings:
    """What one process works with, wired from its settings; enough for those who ask no database."""

    settings: Settings

    @cached_property
    def prices(self) -> PriceBook:
        """The price list under the user's own prices."""
        return PriceBook(self.settings.prices)

    @cached_property
    def endpoint(self) -> "Endpoint":
        """Where Claude is and whether it is simulated; asked once.

        Raises:
            ConfigurationError: ANTHROPIC_BASE_URL is no address.
            ConnectionFailed: nothing answers there.
        """
        from promptmill.claude.endpoints import identify_now  # noqa: PLC0415  # a producer may never ask

        return identify_now(self.settings.claude.base_url)

    @property
    def endpoint_name(self) -> str:
        """What a batch remembers, and a worker compares."""
        return SIMULATED if self.endpoint.simulated else self.endpoint.url

    def declared_keys(self) -> "tuple[KeySource, ...]":
        """Where the keys come from, as the settings and the file of keys say now; a simulator needs none.

        Raises:
            ConfigurationError: the file of keys is wrong.
        """
        from promptmill.claude.keys import declared_keys, rehearsing  # noqa: PLC0415  # only workers call

        claude = self.settings.claude
        declared = declared_keys(claude.api_key, claude.keys_file, api_key_file=claude.api_key_file)
        if not self.endpoint.simulated:
            return declared
        return tuple(
            replace(each, account=rehearsing(each.account, self.endpoint.url))
            for each in declared or (_simulated_key(),)
        )

    def read_keys(self) -> "tuple[Key, ...]":
        """The keys that need not be fetched, as their files give them now.

        Raises:
            ConfigurationError: a key or a file of keys is wrong.
        """
        return tuple(each.read() for each in self.declared_keys() if not each.kind.is_fetched)

    def keys(self) -> "KeyRing":
        """A ring of those keys.

        Raises:
            ConfigurationError: see `read_keys`.
        """
        from promptmill.claude.keys import KeyRing  # noqa: PLC0415  # only workers call

        return KeyRing(self.read_keys())

    def webhook_secrets(self) -> "Secrets":
        """What notices are signed with.

        Raises:
            ConfigurationError: the file cannot be read, or is empty, or a secret is none.
        """
        from promptmill.webhooks import Secrets  # noqa: PLC0415  # only workers tell anybody

        secret = self.settings.webhook.read_secret()
        try:
            return Secrets.read("" if secret is None else secret.get_secret_value())
        except InvalidInput as error:
            setting = "PROMPTMILL_WEBHOOK_SECRET"
            raise ConfigurationError(f"{setting}: {error.why}", setting=setting) from None

    def client(self) -> "ClaudeClient":
        """A client for the running event loop; whoever asks closes it."""
        from promptmill.claude.client import ClaudeClient, Timeouts  # noqa: PLC0415  # only workers call

        claude = self.settings.claude
        return ClaudeClient(
            base_url=claude.base_url,
            api_version=claude.api_version,
            timeouts=Timeouts(
                connect=claude.connect_timeout_s,
                idle=claude.idle_timeout_s,
                stream_idle=claude.stream_idle_timeout_s,
                total=claude.total_timeout_s,
            ),
            max_connections=self.settings.worker.concurrency,
        )

    def limiter(self, process_id: str) -> "RedisLimiter":
        """The shared limiter for the running event loop; whoever asks closes it."""
        from promptmill.limits import RedisLimiter  # noqa: PLC0415  # a producer may never ask

        return RedisLimiter(self.redis_url, ceilings=self.ceilings_of, process=process_id)

    @property
    def redis_url(self) -> str:
        """Where Redis is.

        Raises:
            ConfigurationError: nobody said, and this process starts none.
        """
        if self.settings.redis_url is None:
            raise ConfigurationError(
                "PROMPTMILL_REDIS_URL: no Redis is configured, and only `promptmill run` and "
                "`promptmill up` start one",
                setting="PROMPTMILL_REDIS_URL",
            )
        return self.settings.redis_url

    @cached_property
    def ceilings_of(self) -> "Callable[[Pool], Ceilings]":
        """The limits a person set for a pool's account and model group, per minute; looked up once, each call asks."""
        from promptmill.claude.keys import configured_account  # noqa: PLC0415  # a producer may never ask
        from promptmill.limits import Ceilings  # noqa: PLC0415  # likewise

        @cache
        def of(pool: "Pool") -> "Ceilings":
            limits = self.settings.limits.of(pool.group, configured_account(pool.account))
            return Ceilings(limits.rpm, limits.itpm, limits.otpm)

        return of

    @cached_property
    def catalogue(self) -> Catalogue:
        """What is known of models, with what the user added."""
        return Catalogue(self.settings.models)


@dataclass
class Runtime(Surroundings):
    """The parts of one process, its database among them."""

    database: Database

    @classmethod
    @contextmanager
    def open(cls, settings: Settings) -> "Iterator[Runtime]":
        """The runtime of these settings; the database is closed at the end of the block.

        Raises:
            ConfigurationError: see `open_database`.
        """
        with open_database(settings) as database:
            yield cls(settings, database)


def _simulated_key() -> "KeySource":
    from pydantic import SecretStr  # noqa: PLC0415  # only where a simulator is called

    from promptmill.claude.keys import DEFAULT, KeySource, SourceKind  # noqa: PLC0415  # likewise

    kind = SourceKind.VARIABLE
    return KeySource(label="simulated", account=DEFAULT, kind=kind, secret=SecretStr("simulated"))
