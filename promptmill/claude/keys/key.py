"""Key: one credential of an account.

The idea: two keys are the same when they would be refused alike, that is when label, account, secret and header agree.
What is only known about a key, its expiry and where it came from, makes no other key of it.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import SecretStr

from promptmill.errors import ConfigurationError

DEFAULT = "default"

LAST_OF_IT = timedelta(seconds=10)
"""Before its end a key is not used: a call takes a moment to arrive, and clocks differ."""
LAST_SHARE = 10
"""Of the life of a short-lived token no more than a tenth is given up so."""

_REHEARSING = "simulated/"
_API_KEY, _ACCESS_TOKEN = "sk-ant-api", "sk-ant-oat"  # what their values begin with (claude-api.md, 1.2)


class Header(StrEnum):
    """How a key travels (claude-api.md, 1.2)."""

    X_API_KEY = "x-api-key"
    BEARER = "bearer"


class SourceKind(StrEnum):
    """Where a key comes from."""

    VARIABLE = "variable"
    FILE = "file"
    KEYS_FILE = "keys file"
    COMMAND = "command"
    PROVIDER = "provider"

    @property
    def is_fetched(self) -> bool:
        """True for a short-lived token that is asked for again and again."""
        return self in (SourceKind.COMMAND, SourceKind.PROVIDER)


@dataclass(frozen=True, slots=True)
class Key:
    """One credential: `label` for people, `account` for the limiter, the secret for the request alone.

    Attributes:
        header: how it travels.
        expires_at: when it ends, if that is known.
        use_until: from then on it is not used any more; a little before its end.
        kind: where it came from.
    """

    label: str
    secret: SecretStr
    account: str
    header: Header = Header.X_API_KEY
    expires_at: datetime | None = field(default=None, compare=False)
    use_until: datetime | None = field(default=None, compare=False)
    kind: SourceKind = field(default=SourceKind.VARIABLE, compare=False)

    @property
    def is_access_token(self) -> bool:
        """Whether it is one of Anthropic's OAuth tokens, which want a beta name beside them."""
        return self.secret.get_secret_value().startswith(_ACCESS_TOKEN)


def last_use(expires_at: datetime | None, obtained_at: datetime | None = None) -> datetime | None:
    """Until when a key is used that ends at `expires_at`; `obtained_at` is when a short life began."""
    if expires_at is None:
        return None
    if obtained_at is None:
        return expires_at - LAST_OF_IT
    return expires_at - min(LAST_OF_IT, (expires_at - obtained_at) / LAST_SHARE)


def header_for(secret: SecretStr, kind: SourceKind) -> Header:
    """How a key travels whose file does not say: what is fetched is a bearer token unless it looks like an API key."""
    value = secret.get_secret_value()
    if value.startswith(_ACCESS_TOKEN) or (kind.is_fetched and not value.startswith(_API_KEY)):
        return Header.BEARER
    return Header.X_API_KEY


def as_secret(text: str, setting: str, what: str) -> SecretStr:
    """A secret that can travel in a header: printable ASCII, no spaces.

    Raises:
        ConfigurationError: it is none; named by `setting` and `what`, never by its value.
    """
    text = text.strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(
            f"{setting}: {what} is empty or holds characters no key has", setting=setting
        )
    return SecretStr(text)


def rehearsing(account: str, url: str) -> str:
    """The name under which an account's limits are kept while the simulated Claude at `url` answers.

    What a simulator allows says nothing about the real account, nor about another simulator: each has buckets of its
    own. `url` is as `Endpoint` has it.
    """
    return f"{_REHEARSING}{account}@{url.partition('://')[2]}"


def is_rehearsing(name: str) -> bool:
    """Whether limits that are kept under this name are those of a simulated Claude."""
    return name.startswith(_REHEARSING)


def configured_account(name: str) -> str:
    """The account as a person wrote it, of a name that limits are kept under."""
    if not is_rehearsing(name):
        return name
    account = name.removeprefix(_REHEARSING)
    return account.rpartition("@")[0] or account
