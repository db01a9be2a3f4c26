"""Webhooks: one signed POST to an address a person gave, sent so that it cannot be turned against inner hosts.

The one idea: the name is resolved once, every address it has is judged, and the connection is made to an address
that was judged. So a name that resolves otherwise a moment later gains nothing. There is no redirect, no proxy and
no retry in here, and nothing of the answer is read but its status. All of it ends at one deadline, a resolver that
is stuck included: whoever sends may count on that.

Signed as Standard Webhooks 1.0 says (standardwebhooks.com): the HMAC-SHA256 of `id.timestamp.body`.
"""

import base64
import binascii
import hashlib
import hmac
import socket
import ssl
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import zip_longest
from queue import Empty, SimpleQueue
from time import monotonic
from urllib.parse import SplitResult, urlsplit

from promptmill.errors import InvalidInput

TIMEOUT_S = 10.0
"""For all of a delivery."""
LONGEST_URL = 2_000
SHORTEST_SECRET = 24
"""Bytes; Standard Webhooks 1.0 asks for as many."""
_SECRET_PREFIX = "whsec_"  # noqa: S105  # how such a secret begins
_NOT_PUBLIC = "it is not on the public internet; PROMPTMILL_WEBHOOK_ALLOW lets inner hosts be named"
_PORTS = {"https": 443, "http": 80}
_MOST_TRIED = 4  # addresses of a name
_MOST_LOOKUPS = 32  # threads that may hang in the system's resolver at once
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


@dataclass(frozen=True, slots=True)
class Secrets:
    """What deliveries are signed with; several while one is being replaced. They are in no repr."""

    values: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def read(cls, text: str) -> "Secrets":
        """Secrets from text, one or several between blanks: `whsec_` and base64, or any other words as they are.

        Raises:
            InvalidInput: one is shorter than 24 bytes, or what follows `whsec_` is no base64.
        """
        return cls(tuple(_secret(word) for word in text.split()))

    def signatures(self, message_id: str, timestamp: int, body: bytes) -> str:
        """The value of `webhook-signature`."""
        signed = f"{message_id}.{timestamp}.".encode() + body
        digests = (hmac.new(each, signed, hashlib.sha256).digest() for each in self.values)
        return " ".join(f"v1,{base64.b64encode(each).decode()}" for each in digests)


@dataclass(frozen=True, slots=True)
class Message:
    """What is told.

    Attributes:
        id: the same however often it is sent, so that a receiver can leave out the second.
        url: checked by `check_url`; it may hold a secret, so only its host is ever said.
        body: JSON.
    """

    id: str
    url: str = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a message: the status of the answer, or why there is none."""

    status: int | None = None
    fault: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether the receiver has it."""
        return self.status is not None and HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    def __str__(self) -> str:
        return self.fault or f"answered {self.status}"


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
    parts, port = _parts(url)
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


def deliver(
    message: Message,
    *,
    secrets: Secrets,
    now: datetime,
    allowed: Collection[str] = (),
    resolve: Resolve | None = None,
    context: ssl.SSLContext | None = None,
    timeout: float = TIMEOUT_S,
) -> Delivery:
    """Send a message once.

    Args:
        message: what, and where to.
        secrets: what it is signed with; without any it goes unsigned.
        now: aware; the receiver refuses what is too old.
        allowed: see `check_url`.
        resolve: the addresses of a name and port; the system's resolver when None.
        context: for TLS; the system's certificates when None.
        timeout: seconds, from the name to the status line.
    """
    deadline = monotonic() + timeout
    try:
        check_url(message.url, allowed)
        parts, port = _parts(message.url)
        addresses = _judged(str(parts.hostname), port, allowed, _in_time(resolve or _resolved, deadline))
        with closing(_connected(addresses, port, deadline)) as plain, _alarm(plain, deadline):
            stream = _spoken(plain, parts, context)
            with closing(stream):
                return _post(message, parts, _headers(message, secrets, now), stream)
    except InvalidInput as error:
        return Delivery(fault=error.why)
    except TimeoutError:
        return Delivery(fault=f"no answer within {timeout:g} s")
    except (OSError, HTTPException, UnicodeError) as error:
        return Delivery(fault=type(error).__name__)


def _secret(word: str) -> bytes:
    secret = word.encode()
    if word.startswith(_SECRET_PREFIX):
        try:
            secret = base64.b64decode(word.removeprefix(_SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidInput("what follows whsec_ is no base64", field="webhook secret") from None
    if len(secret) < SHORTEST_SECRET:
        why = f"a secret has at least {SHORTEST_SECRET} bytes, and one given has {len(secret)}; make one with: openssl rand -hex 32"
        raise InvalidInput(why, field="webhook secret")
    return secret


def _parts(url: str) -> tuple[SplitResult, int]:
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


def _judged(host: str, port: int, allowed: Collection[str], resolve: Resolve) -> Sequence[str]:
    """The addresses of a host; one that may not be spoken to condemns them all."""
    addresses = resolve(host, port)
    is_allowed = _is_allowed(host, port, allowed)
    for each in addresses:
        is_literal = each == host
        if why := _why_not(ip_address(each), is_allowed=is_allowed, is_literal=is_literal):
            raise _wrong(f"leads to {each}: {why}")
    if not addresses:
        raise _wrong("has a name without an address")
    return list(addresses)


def _in_time(resolve: Resolve, deadline: float) -> Resolve:
    """The same, on a thread that may be left behind: nothing can interrupt the system's resolver."""

    def bounded(host: str, port: int) -> Collection[str]:
        found: SimpleQueue[Collection[str] | Exception] = SimpleQueue()

        def look_up() -> None:
            try:
                found.put(resolve(host, port))
            except Exception as error:  # noqa: BLE001  # raised again by who waits
                found.put(error)
            finally:
                _LOOKUPS.release()

        if not _LOOKUPS.acquire(timeout=_left(deadline)):
            raise TimeoutError
        threading.Thread(target=look_up, name="promptmill-lookup", daemon=True).start()
        try:
            answer = found.get(timeout=_left(deadline))
        except Empty:
            raise TimeoutError from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    return bounded


_LOOKUPS = threading.BoundedSemaphore(_MOST_LOOKUPS)


def _resolved(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


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


def _connected(addresses: Sequence[str], port: int, deadline: float) -> socket.socket:
    """A connection to the first address that answers; each is given its share of the time, the last all that is left."""
    to_try = _few(addresses)
    for left, each in zip(range(len(to_try), 0, -1), to_try, strict=True):
        try:
            return socket.create_connection((each, port), timeout=_left(deadline) / left)
        except OSError:  # a TimeoutError is one too
            if left == 1:
                raise
    raise AssertionError("there is an address")


def _few(addresses: Sequence[str]) -> Sequence[str]:
    """IPv6 and IPv4 in turn: often one of the two leads nowhere from a network."""
    kinds = [
        [each for each in addresses if (":" in each) is is_v6]
        for is_v6 in (":" in addresses[0], ":" not in addresses[0])
    ]
    in_turn = [each for pair in zip_longest(*kinds) for each in pair if each is not None]
    return in_turn[:_MOST_TRIED]


def _left(deadline: float) -> float:
    if (left := deadline - monotonic()) <= 0:
        raise TimeoutError
    return left


def _headers(message: Message, secrets: Secrets, now: datetime) -> Mapping[str, str]:
    timestamp = int(now.timestamp())
    headers = {
        "content-type": "application/json",
        "user-agent": "promptmill",
        "connection": "close",
        "webhook-id": message.id,
        "webhook-timestamp": str(timestamp),
    }
    if secrets.values:
        headers["webhook-signature"] = secrets.signatures(message.id, timestamp, message.body)
    return headers


@contextmanager
def _alarm(plain: socket.socket, deadline: float) -> Iterator[None]:
    """End everything at the deadline: a receiver that sends a byte now and then would outlast every timeout of a read.

    Raises:
        TimeoutError: in place of what the block raises because of that.
    """
    is_late = threading.Event()

    def cut() -> None:
        is_late.set()
        with suppress(OSError):
            plain.shutdown(socket.SHUT_RDWR)

    alarm = threading.Timer(_left(deadline), cut)
    alarm.daemon = True
    alarm.start()
    try:
        yield
    except (OSError, HTTPException):
        if is_late.is_set():
            raise TimeoutError from None
        raise
    finally:
        alarm.cancel()


def _spoken(plain: socket.socket, parts: SplitResult, context: ssl.SSLContext | None) -> socket.socket:
    """With TLS where the address says so; the certificate must be that of the host."""
    if parts.scheme != "https":
        return plain
    own = ssl.create_default_context() if context is None else context
    # The socket is whoever opened it's to close, so TLS gets one of its own.
    return own.wrap_socket(plain.dup(), server_hostname=parts.hostname)


def _post(
    message: Message, parts: SplitResult, headers: Mapping[str, str], stream: socket.socket
) -> Delivery:
    with closing(HTTPConnection(str(parts.hostname))) as connection:
        connection.sock = stream  # so that it makes none of its own
        target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        connection.request("POST", target, message.body, {**headers, "host": parts.netloc})
        return Delivery(status=connection.getresponse().status)
