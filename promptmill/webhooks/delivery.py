"""One signed POST: the connection is made to an address that was judged, and nothing of the answer is read but its status.

The one idea: there is no redirect, no proxy and no retry in here.
"""

import socket
import ssl
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from itertools import zip_longest
from time import monotonic
from urllib.parse import SplitResult

from promptmill.errors import InvalidInput
from promptmill.webhooks.addresses import Resolve, check_url, judged, parts_of
from promptmill.webhooks.deadlines import alarm_at, in_time, left_until
from promptmill.webhooks.signing import Secrets

TIMEOUT_S = 10.0
"""For all of a delivery."""
_MOST_TRIED = 4  # addresses of a name


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
        parts, port = parts_of(message.url)
        addresses = judged(str(parts.hostname), port, allowed, in_time(resolve or _resolved, deadline))
        with closing(_connected(addresses, port, deadline)) as plain, alarm_at(plain, deadline):
            stream = _spoken(plain, parts, context)
            with closing(stream):
                return _post(message, parts, _headers(message, secrets, now), stream)
    except InvalidInput as error:
        return Delivery(fault=error.why)
    except TimeoutError:
        return Delivery(fault=f"no answer within {timeout:g} s")
    except (OSError, HTTPException, UnicodeError) as error:
        return Delivery(fault=type(error).__name__)


def _resolved(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def _connected(addresses: Sequence[str], port: int, deadline: float) -> socket.socket:
    """A connection to the first address that answers; each is given its share of the time, the last all that is left."""
    to_try = _few(addresses)
    for left, each in zip(range(len(to_try), 0, -1), to_try, strict=True):
        try:
            return socket.create_connection((each, port), timeout=left_until(deadline) / left)
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
