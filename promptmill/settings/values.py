"""What a process is told from outside, as one frozen value of small groups.

The idea to keep in mind: a value knows its own rules and defaults, and nothing of where it came from. What holds
between several of them is in `checks`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from promptmill.secretfiles import read_secret

REAL_API = "https://api.anthropic.com"
API_VERSION = "2026-10-21"


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
