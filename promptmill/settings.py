"""Settings: one frozen value of small groups, read once at the edge of a process.

Strength, strongest first: arguments, environment, `.env`, `promptmill.toml`, defaults. Nothing below
`runtime` reads settings by itself; rooms are given plain values. `Settings.origins` says where each
value came from, for `promptmill doctor`.
"""

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from promptmill.errors import ConfigurationError
from promptmill.secretfiles import full_address, read_secret

REAL_API = "https://api.anthropic.com"
API_VERSION = "2026-10-21"
BROKERS = frozenset({
    "amqp", "amqps", "azureservicebus", "azurestoragequeues", "confluentkafka", "consul", "etcd",
    "filesystem", "gcpubsub", "kafka", "librabbitmq", "memory", "mongodb", "pgmq",
    "pyamqp", "pyro", "qpid", "redis", "rediss", "sentinel", "SLMQ",
    "slmq", "sqla", "sqlalchemy", "SQS", "sqs", "zookeeper",
})  # fmt: skip
"""What an address of a broker may begin with: kombu's transports, which a test compares."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", ""})


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


PerMinute = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GroupLimits(_Group):
    """Ceilings per minute of one model group; None = learned, 0 = no limit in that dimension."""

    rpm: PerMinute | None = None
    itpm: PerMinute | None = None
    otpm: PerMinute | None = None


class AccountLimits(GroupLimits):
    """Ceilings of one account: for every model group without an entry of its own in `groups`."""

    groups: Mapping[str, GroupLimits] = {}

    def of(self, group: str) -> GroupLimits:
        """The ceilings of one model group."""
        own = GroupLimits(rpm=self.rpm, itpm=self.itpm, otpm=self.otpm)
        return self.groups.get(group, own)


class LimitSettings(AccountLimits):
    """Ceilings for every account without an entry of its own in `accounts`; each has them for itself."""

    rate_limit: Annotated[float, Field(gt=0)] | None = None
    accounts: Mapping[str, AccountLimits] = {}

    def of(self, group: str, account: str | None = None) -> GroupLimits:
        """The ceilings that hold for a model group of an account; `rate_limit` is requests per second.

        Of `rpm` and `rate_limit` the lower one holds; an `rpm` of 0 states no limit, so it lifts no other.
        An entry stands alone: what it leaves out is learned, not taken from a wider one.
        """
        if account is not None and account in self.accounts:
            return self.accounts[account].of(group)
        if group in self.groups:
            return self.groups[group]
        if self.rate_limit is None:
            return GroupLimits(rpm=self.rpm, itpm=self.itpm, otpm=self.otpm)
        rpm = min(self.rpm or float("inf"), self.rate_limit * 60)
        return GroupLimits(rpm=rpm, itpm=self.itpm, otpm=self.otpm)

    def not_among(self, accounts: Iterable[str]) -> list[str]:
        """The accounts that have an entry and are none of these: nothing ever follows their limits."""
        return sorted(set(self.accounts) - set(accounts))


class ClaudeSettings(_Group):
    """Where Claude is, and with what to call it."""

    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    keys_file: Path | None = None
    admin_key: SecretStr | None = None  # reads the organization's limits; never calls a model
    admin_key_file: Path | None = None
    base_url: str = REAL_API
    api_version: str = API_VERSION
    connect_timeout_s: Seconds = 10
    idle_timeout_s: Seconds = 600
    stream_idle_timeout_s: Seconds = 60
    total_timeout_s: Seconds = 900

    @property
    def has_key(self) -> bool:
        """True when some key is configured, whether or not it works."""
        return bool(self.api_key or self.api_key_file or self.keys_file)

    def read_api_key(self) -> SecretStr | None:
        """The one key of the simple form, from the variable or the file.

        Raises:
            ConfigurationError: the file cannot be read, or is empty.
        """
        return _given_or_read(self.api_key, self.api_key_file, "ANTHROPIC_API_KEY_FILE")

    def read_admin_key(self) -> SecretStr | None:
        """The key that may read the organization's limits, from the variable or the file.

        Raises:
            ConfigurationError: the file cannot be read, or is empty.
        """
        return _given_or_read(self.admin_key, self.admin_key_file, "ANTHROPIC_ADMIN_KEY_FILE")


def _given_or_read(given: SecretStr | None, file: Path | None, setting: str) -> SecretStr | None:
    if given is not None or file is None:
        return given
    return SecretStr(read_secret(file, setting))


class WorkerSettings(_Group):
    """How a worker process works."""

    concurrency: Annotated[int, Field(ge=1, le=20_000)] = 1000
    patience_s: Seconds = 15
    heartbeat_s: Seconds = 3
    dead_after_s: Seconds = 10
    commit_rows: Annotated[int, Field(ge=1)] = 100
    commit_delay_s: Annotated[float, Field(ge=0)] = 0.02
    max_attempts: Annotated[int, Field(ge=1)] = 6
    outage_s: Annotated[float, Field(ge=0)] = 120
    max_losses: Annotated[int, Field(ge=1)] = 5
    deaf_after_s: Seconds = 10
    hung_after_s: Seconds = 60
    reconcile_s: Seconds = 30
    transport: Literal["batched", "stock"] = "batched"  # how ids are taken from Redis
    pulse_file: Path | None = None  # touched with every heartbeat, for a container's health check


class DashboardSettings(_Group):
    """What a person signs in to the page with."""

    token: SecretStr | None = None
    token_file: Path | None = None

    def read_token(self) -> SecretStr | None:
        """The token, from the variable or the file; None where nobody set one.

        Raises:
            ConfigurationError: the file cannot be read, or is empty.
        """
        return _given_or_read(self.token, self.token_file, "PROMPTMILL_DASHBOARD_TOKEN_FILE")


class RetentionSettings(_Group):
    """Days that a batch which has ended keeps what it holds; None = for ever."""

    prompts_days: Annotated[float, Field(ge=0)] | None = None
    answers_days: Annotated[float, Field(ge=0)] | None = None
    everything_days: Annotated[float, Field(ge=0)] | None = None


class WebhookSettings(_Group):
    """How those are told who asked for it."""

    secret: SecretStr | None = None
    secret_file: Path | None = None
    allow: str = ""  # inner hosts, `name` or `name:port`, between commas

    @property
    def allowed(self) -> frozenset[str]:
        """The inner hosts that may be told."""
        return frozenset(host.strip().lower() for host in self.allow.split(",") if host.strip())

    def read_secret(self) -> SecretStr | None:
        """What notices are signed with, from the variable or the file.

        Raises:
            ConfigurationError: the file cannot be read, or is empty.
        """
        return _given_or_read(self.secret, self.secret_file, "PROMPTMILL_WEBHOOK_SECRET_FILE")


class Settings(_Group):
    """Everything a process is told from outside."""

    home: Path = Path(".promptmill")
    redis_url: str | None = None
    redis_url_file: Path | None = None
    redis_password_file: Path | None = None
    broker_url: str | None = None
    broker_url_file: Path | None = None
    broker_password_file: Path | None = None
    database_url: str | None = None
    encryption_keys_file: Path | None = None
    database_url_file: Path | None = None
    database_password_file: Path | None = None
    log_level: LogLevel = "WARNING"
    log_format: Literal["auto", "console", "json"] = "auto"
    tracing: Annotated[float, Field(ge=0, le=1)] = 0.0  # the share of jobs that is traced
    claude: ClaudeSettings = ClaudeSettings()
    limits: LimitSettings = LimitSettings()
    worker: WorkerSettings = WorkerSettings()
    retention: RetentionSettings = RetentionSettings()
    webhook: WebhookSettings = WebhookSettings()
    dashboard: DashboardSettings = DashboardSettings()
    models: Mapping[str, Mapping[str, Any]] = {}
    prices: Mapping[str, Mapping[str, Any]] = {}
    origins: Mapping[str, str] = Field(default={}, repr=False)

    @property
    def effective_database_url(self) -> str:
        """The store's URL; SQLite in the data folder when none is set."""
        return self.database_url or f"sqlite:///{self.home.resolve() / 'promptmill.db'}"


# The names are a contract (docs/settings.md). First name found wins; dotted paths are `group.field`.
VARIABLES: dict[str, tuple[str, ...]] = {
    "home": ("PROMPTMILL_HOME",),
    "redis_url": ("PROMPTMILL_REDIS_URL", "REDIS_URL"),
    "redis_url_file": ("PROMPTMILL_REDIS_URL_FILE",),
    "redis_password_file": ("PROMPTMILL_REDIS_PASSWORD_FILE",),
    "broker_url": ("PROMPTMILL_BROKER_URL",),
    "broker_url_file": ("PROMPTMILL_BROKER_URL_FILE",),
    "broker_password_file": ("PROMPTMILL_BROKER_PASSWORD_FILE",),
    "database_url": ("PROMPTMILL_DATABASE_URL", "DATABASE_URL"),
    "database_url_file": ("PROMPTMILL_DATABASE_URL_FILE",),
    "database_password_file": ("PROMPTMILL_DATABASE_PASSWORD_FILE",),
    "encryption_keys_file": ("PROMPTMILL_ENCRYPTION_KEYS_FILE",),
    "log_level": ("PROMPTMILL_LOG_LEVEL",),
    "log_format": ("PROMPTMILL_LOG_FORMAT",),
    "tracing": ("PROMPTMILL_TRACING",),
    "claude.api_key": ("ANTHROPIC_API_KEY", "CLAUDE_KEY"),
    "claude.api_key_file": ("ANTHROPIC_API_KEY_FILE",),
    "claude.keys_file": ("PROMPTMILL_KEYS_FILE",),
    "claude.admin_key": ("ANTHROPIC_ADMIN_KEY",),
    "claude.admin_key_file": ("ANTHROPIC_ADMIN_KEY_FILE",),
    "claude.base_url": ("ANTHROPIC_BASE_URL",),
    "claude.api_version": ("PROMPTMILL_API_VERSION",),
    "claude.connect_timeout_s": ("PROMPTMILL_CLAUDE__CONNECT_TIMEOUT_S",),
    "claude.idle_timeout_s": ("PROMPTMILL_CLAUDE__IDLE_TIMEOUT_S",),
    "claude.stream_idle_timeout_s": ("PROMPTMILL_CLAUDE__STREAM_IDLE_TIMEOUT_S",),
    "claude.total_timeout_s": ("PROMPTMILL_CLAUDE__TOTAL_TIMEOUT_S",),
    "limits.rpm": ("PROMPTMILL_RPM",),
    "limits.itpm": ("PROMPTMILL_ITPM",),
    "limits.otpm": ("PROMPTMILL_OTPM",),
    "limits.rate_limit": ("RATE_LIMIT",),
    "worker.concurrency": ("PROMPTMILL_CONCURRENCY",),
    "worker.patience_s": ("PROMPTMILL_WORKER__PATIENCE_S",),
    "worker.heartbeat_s": ("PROMPTMILL_WORKER__HEARTBEAT_S",),
    "worker.dead_after_s": ("PROMPTMILL_WORKER__DEAD_AFTER_S",),
    "worker.commit_rows": ("PROMPTMILL_WORKER__COMMIT_ROWS",),
    "worker.commit_delay_s": ("PROMPTMILL_WORKER__COMMIT_DELAY_S",),
    "worker.max_attempts": ("PROMPTMILL_WORKER__MAX_ATTEMPTS",),
    "worker.outage_s": ("PROMPTMILL_WORKER__OUTAGE_S",),
    "worker.max_losses": ("PROMPTMILL_WORKER__MAX_LOSSES",),
    "worker.deaf_after_s": ("PROMPTMILL_WORKER__DEAF_AFTER_S",),
    "worker.hung_after_s": ("PROMPTMILL_WORKER__HUNG_AFTER_S",),
    "worker.reconcile_s": ("PROMPTMILL_WORKER__RECONCILE_S",),
    "worker.transport": ("PROMPTMILL_WORKER__TRANSPORT",),
    "worker.pulse_file": ("PROMPTMILL_WORKER__PULSE_FILE",),
    "retention.prompts_days": ("PROMPTMILL_RETENTION__PROMPTS_DAYS",),
    "retention.answers_days": ("PROMPTMILL_RETENTION__ANSWERS_DAYS",),
    "retention.everything_days": ("PROMPTMILL_RETENTION__EVERYTHING_DAYS",),
    "webhook.secret": ("PROMPTMILL_WEBHOOK_SECRET",),
    "webhook.secret_file": ("PROMPTMILL_WEBHOOK_SECRET_FILE",),
    "webhook.allow": ("PROMPTMILL_WEBHOOK_ALLOW",),
    "dashboard.token": ("PROMPTMILL_DASHBOARD_TOKEN",),
    "dashboard.token_file": ("PROMPTMILL_DASHBOARD_TOKEN_FILE",),
}


ADMIN_KEY_PATHS = ("claude.admin_key", "claude.admin_key_file")
"""An admin key calls no model, and could change much else: only who asks for it is given it."""
WEBHOOK_SECRET_PATHS = ("webhook.secret", "webhook.secret_file")
"""Whoever has the secret can sign notices: only workers, which send them, are given it."""
DASHBOARD_TOKEN_PATHS = ("dashboard.token", "dashboard.token_file")
"""Who has the token may cancel a batch: only the page is given it."""


def load(
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    with_admin_key: bool = False,
    **arguments: Any,
) -> Settings:
    """Read the settings of this process.

    Args:
        environ: the environment; the process's own when None.
        folder: where `.env` and `promptmill.toml` are looked for; the working directory when None.
        with_admin_key: read an admin key too. Without it none is known, wherever it stands: so no worker has it.
        **arguments: the strongest source, by dotted path with `__` for the dot (`limits__rpm=60`).

    Raises:
        ConfigurationError: one line that names the variable (or the file and entry) and what is wrong.
    """
    folder = folder or Path.cwd()
    values, origins = _read_toml(folder / "promptmill.toml")
    variables = VARIABLES
    if not with_admin_key:
        variables = {path: names for path, names in VARIABLES.items() if path not in ADMIN_KEY_PATHS}
        _leave_out(values, origins, ADMIN_KEY_PATHS)
    dotenv = (
        {name: value or "" for name, value in dotenv_values(folder / ".env").items()}
        if (folder / ".env").is_file()
        else {}
    )
    for source, label in ((dotenv, ".env"), (environ if environ is not None else os.environ, "environment")):
        for path, names in variables.items():
            name = next((name for name in names if source.get(name)), None)
            if name is not None:
                _put(values, path, source[name])
                origins[path] = f"{label} ({name})"
    for argument, value in arguments.items():
        if value is not None:
            path = argument.replace("__", ".")
            _put(values, path, value)
            origins[path] = "argument"
    return _check(_with_full_addresses(_build(values, origins)))


def _read_toml(file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    if not file.is_file():
        return {}, {}
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{file}: {error}", setting=str(file)) from error
    origins = {path: file.name for path in VARIABLES if _get(values, path) is not None}
    return values, origins


def _get(values: Mapping[str, Any], path: str) -> Any:
    for part in path.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return None
        values = values[part]
    return values


def _leave_out(values: dict[str, Any], origins: dict[str, str], paths: Iterable[str]) -> None:
    for path in paths:
        *groups, field = path.split(".")
        group = _get(values, ".".join(groups))
        if isinstance(group, dict):
            group.pop(field, None)
        origins.pop(path, None)


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *groups, field = path.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[field] = value


def _build(values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate({**values, "origins": origins})
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        path = ".".join(str(part) for part in fault["loc"])
        name = VARIABLES.get(path, (path,))[0]
        origin = origins.get(path, "promptmill.toml")
        told = origin.partition("(")[2].rstrip(")") or f"{name} in {origin}"
        raise ConfigurationError(f"{told}: {fault['msg'].lower()}", setting=name) from None


def _with_full_addresses(settings: Settings) -> Settings:
    values: dict[str, Any] = {"origins": dict(settings.origins)}
    for path in ("redis_url", "broker_url", "database_url"):
        server = path.removesuffix("_url")
        url_file = getattr(settings, f"{server}_url_file")
        values[path] = full_address(
            getattr(settings, path),
            url_file=url_file,
            password_file=getattr(settings, f"{server}_password_file"),
            setting=VARIABLES[path][0],
        )
        if values[path] is not None:
            values["origins"].setdefault(path, f"file ({url_file})")
    return settings.model_copy(update=values)


def _check(settings: Settings) -> Settings:
    if settings.broker_url and (fault := _fault_of_broker(settings.broker_url)):
        raise ConfigurationError(f"PROMPTMILL_BROKER_URL: {fault}", setting="PROMPTMILL_BROKER_URL")
    if settings.redis_url and settings.effective_database_url.startswith("sqlite"):
        host = urlsplit(settings.redis_url).hostname or ""
        if host not in LOOPBACK:
            raise ConfigurationError(
                "PROMPTMILL_DATABASE_URL: workers on several machines need a Postgres server, "
                f"because Redis is on another machine ({host}) and the database is SQLite",
                setting="PROMPTMILL_DATABASE_URL",
            )
    if settings.worker.dead_after_s <= 2 * settings.worker.heartbeat_s:
        raise ConfigurationError(
            "PROMPTMILL_WORKER__DEAD_AFTER_S: must be more than twice PROMPTMILL_WORKER__HEARTBEAT_S",
            setting="PROMPTMILL_WORKER__DEAD_AFTER_S",
        )
    return settings


def _fault_of_broker(url: str) -> str | None:
    """Without a scheme the whole of it may be a password, so it is not repeated."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        return "no address of a broker; it begins with redis:// or amqp://, say"
    if scheme.partition("+")[0] in BROKERS:
        return None
    return f"Celery knows no broker of the kind {scheme}; redis, rediss, amqp and amqps are usual"
