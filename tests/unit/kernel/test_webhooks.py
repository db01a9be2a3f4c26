"""A webhook is signed, bounded, and cannot be turned against inner hosts."""

import base64
import hashlib
import hmac
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from promptmill.errors import InvalidInput
from promptmill.webhooks import Delivery, Message, Secrets, check_url, deliver
from tests.ports import free_port

NOW = datetime(2026, 11, 23, tzinfo=UTC)
BODY = b'{"type":"batch.ended"}'
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
ALLOWED = ("127.0.0.1", "hooks.test")
SECRET, NEXT = b"a secret of twenty-four b", "the-next-one-of-that-length"
INNER = (
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "192.0.0.8", "198.18.0.1", "240.0.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "fec0::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001:db8::1", "64:ff9b:1:7f00:0:100:808:808",
    *(CLOUDS := ("168.63.129.16", "::ffff:168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")),
)  # fmt: skip


class Receiver:
    """A server that says what it is told to, and remembers what it heard."""

    def __init__(self, answer: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> None:
        self.heard: list[bytes] = []
        self._answer, self._tls = answer, tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self._listening.accept()
                with accepted, suppress(OSError):
                    stream = self._tls.wrap_socket(accepted, server_side=True) if self._tls else accepted
                    self.heard.append(_request(stream))
                    self._answer(stream)
                    stream.close()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


def _request(stream: socket.socket) -> bytes:
    heard = b""
    while BODY not in heard:
        if not (more := stream.recv(4096)):
            break
        heard += more
    return heard


@contextmanager
def receiver(
    answer: bytes | Callable[[socket.socket], None] = OK, tls: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    act = answer if callable(answer) else lambda stream: stream.sendall(answer)
    serving = Receiver(act, tls)
    yield serving
    serving.close()


def send(
    url: str, *, secrets: str = "", timeout: float = 5.0, addresses: tuple[str, ...] = (), **others: object
) -> Delivery:
    if addresses:
        others["resolve"] = lambda _host, _port: addresses
    message = Message("batch_1.ended.1", url, BODY)
    told: Any = {"allowed": ALLOWED, **others}
    return deliver(message, secrets=Secrets.read(secrets), now=NOW, timeout=timeout, **told)


def test_a_message_is_signed_as_standard_webhooks_says() -> None:
    secret = base64.b64encode(SECRET).decode()
    with receiver() as serving:
        sent = send(f"http://127.0.0.1:{serving.port}/path?token=1", secrets=f"whsec_{secret} {NEXT}")
    assert (sent.is_done, sent.status) == (True, 200)
    head, _, body = serving.heard[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if not line.startswith("webhook-signature"))
    assert (first, body) == ("POST /path?token=1 HTTP/1.1", BODY)
    assert headers["host"] == f"127.0.0.1:{serving.port}"
    assert headers["webhook-id"] == "batch_1.ended.1"
    signed = f"batch_1.ended.1.{int(NOW.timestamp())}.".encode() + BODY
    ours = [
        base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        for key in (SECRET, NEXT.encode())
    ]
    assert f"webhook-signature: v1,{ours[0]} v1,{ours[1]}" in lines


def test_without_a_secret_it_goes_unsigned_and_no_repr_holds_one() -> None:
    with receiver() as serving:
        assert send(f"http://127.0.0.1:{serving.port}").is_done
    assert b"signature" not in serving.heard[0]
    assert NEXT not in repr(Secrets.read(NEXT))
    assert "token" not in repr(Message("1", "https://example.com/token", b"text"))


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("whsec_", "at least 24 bytes, and one given has 0"),
        ("whsec_" + base64.b64encode(SECRET[:23]).decode(), "at least 24 bytes, and one given has 23"),
        ("hush-hush", "at least 24 bytes, and one given has 9"),
        ("whsec_no-base64", "is no base64"),
    ],
)
def test_a_secret_that_can_be_guessed_is_refused_without_being_repeated(secret: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as raised:
        Secrets.read(f"{NEXT} {secret}")
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("address", INNER)
def test_a_name_that_leads_inside_is_sent_nothing(address: str) -> None:
    sent = send("https://hooks.example.com/", addresses=("93.184.216.34", address))
    assert not sent.is_done
    assert address in str(sent)


@pytest.mark.parametrize("address", INNER)
def test_an_inner_address_is_refused_when_it_is_given(address: str) -> None:
    host = f"[{address}]" if ip_address(address).version == 6 else address
    with pytest.raises(InvalidInput, match="may not be"):
        check_url(f"https://{host}/")


@pytest.mark.parametrize(
    "url", ["https://example.com", "https://93.184.216.34:8443/x?y", "https://[2606:4700::1111]/"]
)
def test_outer_addresses_with_tls_are_fine(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.com/", "begins with https://"),
        ("ftp://example.com/", "is no address such as"),
        ("file:///etc/passwd", "is no address such as"),
        ("https:///path", "is no address such as"),
        ("hooks.example.com", "is no address such as"),
        ("https://user:word@example.com/", "no name and password"),
        ("https://public.example.com@127.0.0.1/", "no name and password"),
        ("https://example.com:99999/", "is no address"),
        ("https://example.com/a b", "without blanks"),
        ("https://example.com\\@127.0.0.1/", "without blanks or backslashes"),
        ("https://example.com/\r\nhost: other", "without blanks"),
        ("https://ex\u00e4mple.com/", "is ASCII"),
        ("https://example.com/" + "x" * 2_000, "2,000 characters at most"),
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_webhook_is_refused_without_being_repeated(url: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as raised:
        check_url(url)
    assert "/etc/passwd" not in str(raised.value)
    assert "word@" not in str(raised.value)


def test_numbers_that_a_resolver_takes_for_an_address_lead_nowhere() -> None:
    for host in ("2130706433", "0x7f.1", "127.1"):
        assert "leads to" in str(send(f"https://{host}/", allowed=()))


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "printer.local", "metadata.google.internal", "a.localhost"]
)
def test_names_of_inner_hosts_are_refused_at_once_unless_allowed(host: str) -> None:
    with pytest.raises(InvalidInput, match="not on the public internet; PROMPTMILL_WEBHOOK_ALLOW"):
        check_url(f"https://{host}:8443/x")
    check_url(f"https://{host}:8443/x", allowed={f"{host.lower()}:8443"})
    check_url("https://local.example.com/")


def test_a_name_is_resolved_once_so_rebinding_gains_nothing() -> None:
    answers = iter([("93.184.216.34", "127.0.0.1"), ("127.0.0.1",)])
    with receiver() as serving:
        sent = send(f"https://rebind.example.com:{serving.port}/", resolve=lambda _host, _port: next(answers))
    assert "leads to 127.0.0.1" in str(sent)
    assert serving.heard == []
    assert len(list(answers)) == 1


def test_an_allowed_name_may_be_inside_but_never_at_the_metadata_of_a_cloud() -> None:
    with receiver() as serving:
        url = f"http://hooks.test:{serving.port}/"
        assert send(url, allowed=(f"hooks.test:{serving.port}",), addresses=("127.0.0.1",)).is_done
        assert not send(url, allowed=("hooks.test:1",), addresses=("127.0.0.1",)).is_done
        assert "link-local" in str(send(url, addresses=("169.254.169.254",)))
        for address in CLOUDS:
            assert "a cloud" in str(send(url, addresses=(address,)))


def test_a_redirect_is_not_followed() -> None:
    with receiver() as inner:
        moved = (
            b"HTTP/1.1 307 Elsewhere\r\nlocation: http://127.0.0.1:%d/\r\ncontent-length: 0\r\n\r\n"
            % inner.port
        )
        with receiver(moved) as serving:
            sent = send(f"http://127.0.0.1:{serving.port}/")
    assert (sent.is_done, str(sent), inner.heard) == (False, "answered 307", [])


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with receiver() as serving:
        assert send(f"http://127.0.0.1:{serving.port}/").is_done


def test_a_receiver_that_drips_is_cut_off_in_time() -> None:
    def drip(stream: socket.socket) -> None:
        while True:
            stream.sendall(b"H")
            time.sleep(0.02)

    began = time.monotonic()
    with receiver(drip) as serving:
        sent = send(f"http://127.0.0.1:{serving.port}/", timeout=0.3)
    assert str(sent) == "no answer within 0.3 s"
    assert time.monotonic() - began < 5


def test_an_address_that_swallows_packets_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, given = socket.create_connection, list[float]()

    def briefly(address: tuple[str, int], timeout: float) -> socket.socket:
        given.append(timeout)
        return connect(address, 0.1 if address[0] == "127.0.0.2" else timeout)

    monkeypatch.setattr("promptmill.webhooks.delivery.socket.create_connection", briefly)
    with receiver() as serving, socket.socket() as silent, ExitStack() as waiting:
        silent.bind(("127.0.0.2", serving.port))
        silent.listen(0)
        for _ in range(4):  # a full queue of connections: what comes now is dropped without a word
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.2", serving.port))
        sent = send(f"http://hooks.test:{serving.port}/", timeout=30.0, addresses=("127.0.0.2", "127.0.0.1"))
    assert str(sent) == "answered 200"
    assert given[0] <= 15


def test_a_name_of_many_addresses_is_tried_at_both_kinds() -> None:
    with receiver() as serving:
        addresses = (*(f"::1:{each}" for each in range(9)), "127.0.0.1")
        assert send(f"http://hooks.test:{serving.port}/", addresses=addresses).is_done


def test_a_resolver_that_is_stuck_is_left_behind_in_time() -> None:
    ends = threading.Event()
    began = time.monotonic()
    sent = send("https://hooks.test/", timeout=0.2, resolve=lambda _host, _port: ends.wait(30) and ())
    assert str(sent) == "no answer within 0.2 s"
    assert time.monotonic() - began < 5
    assert all(each.daemon for each in threading.enumerate() if each.name == "promptmill-lookup")
    ends.set()


def test_a_name_that_is_not_known_is_a_fault() -> None:
    def unknown(_host: str, _port: int) -> tuple[str, ...]:
        raise socket.gaierror

    assert str(send("https://hooks.test/", resolve=unknown)) == "gaierror"


def test_an_answer_without_end_is_not_read() -> None:
    def flood(stream: socket.socket) -> None:
        stream.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000)

    with receiver(flood) as serving:
        assert send(f"http://127.0.0.1:{serving.port}/").is_done
    with receiver(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1_000 + b"\r\n") as serving:
        assert not send(f"http://127.0.0.1:{serving.port}/").is_done
    with receiver(b"nonsense\r\n\r\n") as serving:
        assert str(send(f"http://127.0.0.1:{serving.port}/")) == "BadStatusLine"


def test_nobody_there_is_a_fault_without_the_address() -> None:
    assert str(send(f"http://127.0.0.1:{free_port()}/secret")) == "ConnectionRefusedError"


def test_tls_is_spoken_and_the_name_of_the_certificate_checked(tmp_path: Path) -> None:
    serving_context, trusting = _certificate(tmp_path, "hooks.test")
    with receiver(tls=serving_context) as serving:

        def to(host: str, context: ssl.SSLContext | None) -> str:
            sent = send(
                f"https://{host}:{serving.port}/", context=context, addresses=("127.0.0.1",), allowed=(host,)
            )
            return str(sent)

        assert to("hooks.test", trusting) == "answered 200"
        assert to("other.test", trusting) == "SSLCertVerificationError"
        assert to("hooks.test", None) == "SSLCertVerificationError"


def _certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for a name, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "server.pem"
    file.write_bytes(pem + private)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cadata=pem.decode())
