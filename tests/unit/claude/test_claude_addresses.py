"""Base URLs and proxies: what is accepted, what is shown, and which way a call goes."""

import pytest

from promptmill.claude.endpoints import Endpoint, clean_url, identify, identify_now, shown_url
from promptmill.claude.surroundings import proxy_of
from promptmill.errors import ConfigurationError

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com"),
        (" https://api.anthropic.com/ ", "https://api.anthropic.com"),
        ("http://gateway.example/claude/", "http://gateway.example/claude"),
        ("http://[::1]:8787/a/b", "http://[::1]:8787/a/b"),
    ],
)
def test_a_path_prefix_is_kept_and_a_trailing_slash_is_not(given: str, kept: str) -> None:
    assert clean_url(given) == kept


@pytest.mark.parametrize(
    "given", ["", "api.anthropic.com", "ftp://x", "http://", "http://x:port", "http://x?a=1", "http://[x"]
)
def test_what_is_no_address_names_the_setting(given: str) -> None:
    with pytest.raises(ConfigurationError, match="ANTHROPIC_BASE_URL"):
        clean_url(given)


def test_a_password_in_the_address_is_never_shown() -> None:
    assert shown_url("https://me:secret@gateway.example:8443/x") == "https://gateway.example:8443/x"


async def test_the_real_api_is_known_without_asking_it() -> None:
    real = Endpoint("https://api.anthropic.com", simulated=False)
    assert await identify("https://api.anthropic.com/") == real
    assert identify_now("https://api.anthropic.com/") == real


def test_without_a_proxy_calls_go_straight() -> None:
    assert proxy_of("https://api.anthropic.com") is None


def test_a_proxy_of_the_surroundings_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert proxy_of("https://api.anthropic.com") == "http://proxy.example:3128"
    assert proxy_of("http://gateway.example") is None


def test_a_proxy_without_a_scheme_is_an_http_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "proxy.example:3128")
    assert proxy_of("https://api.anthropic.com") == "http://proxy.example:3128"


def test_exceptions_from_the_proxy_are_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", ".anthropic.com")
    assert proxy_of("https://api.anthropic.com") is None


@pytest.mark.parametrize("host", ["127.0.0.1:8787", "localhost", "[::1]:8787", "claude.localhost"])
def test_this_machine_is_never_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    assert proxy_of(f"http://{host}/x") is None


def test_a_proxy_of_another_kind_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy.example:1080")
    with pytest.raises(ConfigurationError, match="HTTP proxies"):
        proxy_of("https://api.anthropic.com")
