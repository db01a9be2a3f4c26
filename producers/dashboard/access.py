"""Who may see the page and who may act through it. Pure: requests are told of in plain values.

The one idea: on the loopback address everybody of this machine may read, and nobody acts without the token; beyond it
nobody reads without the token either. The name by which the page is asked for is checked too, so that a strange site
cannot have its own name point here and read in its visitors' browsers (DNS rebinding).
"""

import hmac
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from promptmill.errors import ConfigurationError

TOKEN_SETTING = "PROMPTMILL_DASHBOARD_TOKEN"  # noqa: S105  # the name of a setting
SHORTEST_TOKEN = 16
"""Characters: what is shorter can be guessed by trying."""
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one server.

    Attributes:
        host: where it listens.
        token: what a person signs in with; None where nobody may act.
        names: other names by which it may be asked for, as a proxy before it is called.
    """

    host: str
    token: str | None = field(default=None, repr=False)
    names: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse what would open it to strangers.

        Raises:
            ConfigurationError: others could reach it and there is no token, or the token is a short one or no text.
        """
        if self.token is not None and not is_text(self.token):
            raise ConfigurationError(f"{TOKEN_SETTING}: is no text", setting=TOKEN_SETTING)
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            raise ConfigurationError(
                f"{TOKEN_SETTING}: has fewer than {SHORTEST_TOKEN} characters; make one with: "
                'python3 -c "import secrets; print(secrets.token_urlsafe())"',
                setting=TOKEN_SETTING,
            )
        if self.token is None and not self.is_local:
            beyond = f"--host {self.host}" if not is_loopback(self.host) else "--allow-host"
            raise ConfigurationError(
                f"{TOKEN_SETTING}: with {beyond} others can reach the dashboard, so it needs a token; "
                f"set {TOKEN_SETTING} or {TOKEN_SETTING}_FILE",
                setting=TOKEN_SETTING,
            )

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine reach it."""
        return is_loopback(self.host) and not self.names

    @property
    def reads_freely(self) -> bool:
        """Whether everybody who reaches it may read."""
        return self.is_local

    def knows_name(self, host_header: str | None) -> bool:
        """Whether it may be asked for by this name; beyond loopback by any, because nothing is told without the token."""
        name = host_of(host_header)
        if name is None:
            return False
        return not is_loopback(self.host) or name in _LOCAL_NAMES or name == self.host or name in self.names

    def is_token(self, offered: str | None) -> bool:
        """Whether it is the token; takes the same time for every wrong one."""
        if self.token is None or offered is None or not is_text(offered):
            return False
        return hmac.compare_digest(offered.encode(), self.token.encode())


def is_text(offered: str) -> bool:
    """Whether it can be written as UTF-8: JSON and headers may bring along halves of characters."""
    try:
        offered.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether an address or name is of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(host_header: str | None) -> str | None:
    """The name in a Host header, without its port; None where it is no name."""
    try:
        return urlsplit(f"//{host_header}").hostname if host_header else None
    except ValueError:
        return None


def port_of(host_header: str | None) -> int | None:
    """The port in a Host header; None where there is none."""
    try:
        return urlsplit(f"//{host_header}").port if host_header else None
    except ValueError:
        return None


def is_same_site(origin: str | None, host_header: str | None) -> bool:
    """Whether a request comes from a page of this very server; one without an Origin header comes from no page."""
    if origin is None or host_header is None:
        return False
    try:
        found = urlsplit(origin)
    except ValueError:
        return False
    return found.scheme in {"http", "https"} and found.netloc == host_header


def names_of(values: Collection[str]) -> frozenset[str]:
    """Names as they stand in a Host header: small letters, without a port.

    Raises:
        ConfigurationError: one is no name of a host.
    """
    found = {value: host_of(value) for value in values}
    for value, name in found.items():
        if not name or "/" in value:
            raise ConfigurationError(
                f"--allow-host: {value!r} is no name of a host such as mill.example.org",
                setting="--allow-host",
            )
    return frozenset(name for name in found.values() if name)
