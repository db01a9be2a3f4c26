"""What is true of any server: is the way to it encrypted, does it ask for a password, does its clock agree with ours."""

from datetime import timedelta
from urllib.parse import parse_qs, unquote, urlsplit

from producers.doctor.checks import Check, note, ok, wrong
from promptmill.settings import LOOPBACK

CLOCKS_APART = timedelta(seconds=2)
CLOCKS_WRONG = timedelta(seconds=60)
USUAL_PASSWORDS = frozenset({
    "", "admin", "changeme", "default", "example", "guest", "password", "postgres", "promptmill", "redis", "secret",
    "test",
})  # fmt: skip
JUDGED = frozenset(
    {"redis", "rediss", "valkey", "valkeys", "amqp", "amqps", "pyamqp", "postgres", "postgresql"}
)
VERIFIED = frozenset({"verify-ca", "verify-full"})


def way_to(name: str, url: str) -> list[Check]:
    """Whether others can read what goes there, or come in themselves. Nothing is asked of the server.

    Args:
        name: what is there, for people.
        url: where; only a server on another machine is judged.
    """
    parts = urlsplit(url)
    kind = parts.scheme.partition("+")[0]
    if kind not in JUDGED or all(host in LOOPBACK or host.startswith("/") for host in _hosts(url)):
        return []
    where = ", ".join(_hosts(url))
    said = []
    if not _is_verified(url):
        said.append(note(f"{name} encryption", f"none that is verified, to {where}", _encrypt(parts.scheme)))
    password = unquote(parts.password or "") or parse_qs(parts.query).get("password", [""])[-1]
    # Postgres may have one from .pgpass or PGPASSWORD, or know us by a certificate.
    if password in USUAL_PASSWORDS and (password or not kind.startswith("postgres")):
        what = "a password that anybody would try" if password else "no password"
        said.append(
            wrong(f"{name} password", f"{what}, at {where}", "give it a long random one (docs/security.md)")
        )
    return said


def _hosts(url: str) -> list[str]:
    """Several are divided by commas; of Postgres the query counts more, and a path there is a socket of this machine."""
    parts = urlsplit(url)
    given = parse_qs(parts.query).get("host", []) if parts.scheme.startswith("postgres") else []
    return ",".join(given).split(",") if given else [(parts.hostname or "")]


def clocks(name: str, apart: timedelta) -> Check:
    """`apart` is how far the server's clock is before (or behind: negative) this machine's."""
    seconds = apart.total_seconds()
    if abs(apart) < CLOCKS_APART:
        return ok(f"{name} clock", f"within {max(abs(seconds), 0.1):.1f} s of this machine's")
    found = f"{abs(seconds):,.0f} s {'ahead of' if seconds > 0 else 'behind'} this machine's"
    advice = "set both by NTP: ends of keys, due times and logs are compared by them"
    return (wrong if abs(apart) >= CLOCKS_WRONG else note)(f"{name} clock", found, advice)


def _is_verified(url: str) -> bool:
    parts = urlsplit(url)
    asked = parse_qs(parts.query)
    if parts.scheme.startswith("postgres"):
        return asked.get("sslmode", [""])[-1] in VERIFIED
    if parts.scheme in ("rediss", "amqps"):
        return asked.get("ssl_cert_reqs", ["required"])[-1] not in ("none", "CERT_NONE")
    return False


def _encrypt(scheme: str) -> str:
    if scheme.startswith("postgres"):
        return "add ?sslmode=verify-full, unless the network is yours alone"
    return f"use {scheme.rstrip('s')}s:// and verify its certificate, unless the network is yours alone"
