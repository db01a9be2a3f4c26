"""Addresses that may be told, and those of inner hosts, which may not.

The one idea: an address of the internet is judged, never a name. A name is resolved once, every address it has is
judged, and one that may not be spoken to condemns them all.
"""

from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

from promptmill.errors import InvalidInput

LONGEST_URL = 2_000
_NOT_PUBLIC = "it is not on the public internet; PROMPTMILL_WEBHOOK_ALLOW lets inner hosts be named"
_PORTS = {"https": 443, "http": 80}
# RFC 6052: an address of IPv4 in the last 32 bits.
_NAT64 = IPv6Network("64:ff9b::/96")
# Of IANA's registries of special addresses, what releases of Python judge differently.
_SPECIAL: tuple[IPv4Network | IPv6Network, ...] = (
    *map(IPv4Network, ("192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15")),
    # RFC 8215: NAT64 of a network's own, where nobody outside can tell which address of IPv4 is meant.
    IPv6Network("64:ff9b:1::/48"),
    *map(IPv6Network, ("100::/64", "2001::/23", "3fff::/20", "5f00::/16", "fec0::/10")),
)
# Where clouds tell a machine its secrets, beside the link-local ones: the wire server of Azure, and the metadata of
# Alibaba, Oracle, AWS and Google over IPv6. That of Azure is an ordinary address of the public internet.
_METADATA = frozenset(
    map(ip_address, ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)

# RFC 6761, RFC 6762, RFC 8375, and ICANN's reservation of 2024: names that no public host has.
_INNER_NAMES = (".localhost", ".local", ".internal", ".home.arpa", ".localdomain")

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Collection[str]]
"""The addresses of a name and port."""


def host_of(url: str) -> str:
    """The host of an address, which is all of it that may be shown."""
    return urlsplit(url).hostname or "?"


def check_url(url: str, allowed: Collection[str] = ()) -> None:
    """Refuse an address that nothing would ever be sent to; what its name resolves to is judged when it is sent.

    Names that only a network of one's own has, as `localhost` or `hooks.internal`, are refused at once.

    Args:
        url: where to send.
        allowed: hosts, as `name` or `name:port`, that may be private and may be spoken to without TLS.

    Raises:
        InvalidInput: says why; never the address, which may hold a secret.
    """
    parts, port = parts_of(url)
    host = str(parts.hostname)
    is_allowed = _is_allowed(host, port, allowed)
    if parts.scheme != "https" and not is_allowed:
        raise _wrong(f"begins with https://, unless {host} is in PROMPTMILL_WEBHOOK_ALLOW")
    try:
        address = ip_address(host)
    except ValueError:
        if not is_allowed and f".{host.removesuffix('.')}".endswith(_INNER_NAMES):
            raise _wrong(f"may not be {host}: {_NOT_PUBLIC}") from None
        return
    if why := _why_not(address, is_allowed=is_allowed, is_literal=True):
        raise _wrong(f"may not be {host}: {why}")


def parts_of(url: str) -> tuple[SplitResult, int]:
    """The parts of an address and its port.

    Raises:
        InvalidInput: says why it is none that could be told.
    """
    if len(url) > LONGEST_URL or not url.isprintable() or not url.isascii() or " " in url or "\\" in url:
        raise _wrong(f"is ASCII without blanks or backslashes, {LONGEST_URL:,} characters at most")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _wrong("is no address") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise _wrong("is no address such as https://hooks.example.com/batches")
    if parts.username is not None or parts.password is not None:
        raise _wrong("holds no name and password; put a token into its path")
    return parts, _PORTS[parts.scheme] if port is None else port


def _wrong(why: str) -> InvalidInput:
    return InvalidInput(f"the address of a webhook {why}")


def _is_allowed(host: str, port: int, allowed: Collection[str]) -> bool:
    names = {each.strip().lower() for each in allowed}
    return bool(names & {host.lower(), f"{host.lower()}:{port}"})


def judged(host: str, port: int, allowed: Collection[str], resolve: Resolve) -> Sequence[str]:
    """The addresses of a host; one that may not be spoken to condemns them all.

    Raises:
        InvalidInput: says which, and why.
    """
    addresses = resolve(host, port)
    is_allowed = _is_allowed(host, port, allowed)
    for each in addresses:
        is_literal = each == host
        if why := _why_not(ip_address(each), is_allowed=is_allowed, is_literal=is_literal):
            raise _wrong(f"leads to {each}: {why}")
    if not addresses:
        raise _wrong("has a name without an address")
    return list(addresses)


def _why_not(address: Address, *, is_allowed: bool, is_literal: bool) -> str | None:
    """Why nothing is sent to an address; None where it may be."""
    inner = _inner(address)
    is_of_cloud = inner.is_link_local or inner in _METADATA
    if is_allowed and (is_literal or not is_of_cloud):
        return None
    if is_of_cloud:
        return "it is link-local" if inner.is_link_local else "it is where a cloud serves its metadata"
    is_outer = inner.is_global and not inner.is_multicast and not inner.is_reserved
    if is_outer and not any(inner in network for network in _SPECIAL):
        return None
    return _NOT_PUBLIC


def _inner(address: Address) -> Address:
    """The address of IPv4 that one of IPv6 leads to, where it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)
