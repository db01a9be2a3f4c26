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
VERIFIED = frozenset({"verify-ca", "verify-full"})


def way_to(name: str, url: str) -> list[Check]:
    """Whether others can read what goes there, or come in themselves. Nothing is asked of the server.

    Args:
        name: what is there, for people.
        url: where; only a server on another machine is judged.
    """
    parts = urlsplit(url)
    if (parts.hostname or "") in LOOPBACK:
        return []
    said = []
    if not _is_verified(url):
        said.append(
            note(f"{name} encryption", f"none that is verified, to {parts.hostname}", _encrypt(parts.scheme))
        )
    if unquote(parts.password or "") in USUAL_PASSWORDS:
        what = "no password" if not parts.password else "a password that anybody would try"
        said.append(
            wrong(
                f"{name} password",
                f"{what}, at {parts.hostname}",
                "give it a long random one (docs/security.md)",
            )
        )
    return said


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
