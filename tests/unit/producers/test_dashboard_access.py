"""Who may see the page, and by which name it may be asked for."""

import pytest

from producers.dashboard.access import Access, is_same_site, names_of
from producers.dashboard.sessions import LASTS_S, MOST, Sessions
from promptmill.errors import ConfigurationError

TOKEN = "a-token-of-some-length"


def test_on_this_machine_everybody_reads_and_nobody_acts() -> None:
    access = Access("127.0.0.1")

    assert access.reads_freely
    assert not access.is_token("")
    assert not access.is_token(None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "mill.example.org"])
def test_beyond_this_machine_it_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigurationError, match="PROMPTMILL_DASHBOARD_TOKEN"):
        Access(host)

    assert not Access(host, TOKEN).reads_freely


def test_half_a_character_is_no_token() -> None:
    assert not Access("127.0.0.1", TOKEN).is_token("\ud800")
    with pytest.raises(ConfigurationError, match="is no text"):
        Access("127.0.0.1", "\udcff" * 20)


def test_behind_a_proxy_it_needs_a_token_too() -> None:
    with pytest.raises(ConfigurationError, match="--allow-host"):
        Access("127.0.0.1", names=frozenset({"mill.example.org"}))


def test_a_short_token_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="fewer than 16") as caught:
        Access("127.0.0.1", "secret")

    assert "'secret'" not in str(caught.value)
    assert TOKEN not in repr(Access("127.0.0.1", TOKEN))


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("127.0.0.1:8788", True),
        ("localhost:8788", True),
        ("LOCALHOST", True),
        ("[::1]:8788", True),
        ("evil.example:8788", False),
        ("127.0.0.1.evil.example", False),
        ("localhost@evil.example", False),
        ("[::1", False),
        ("", False),
        (None, False),
    ],
)
def test_a_page_of_this_machine_is_known_by_its_own_names_only(header: str | None, known: bool) -> None:
    assert Access("127.0.0.1").knows_name(header) is known


def test_a_proxy_has_its_name_told() -> None:
    access = Access("127.0.0.1", TOKEN, names_of(["Mill.Example.org"]))

    assert access.knows_name("mill.example.org:443")
    assert not access.knows_name("evil.example")


@pytest.mark.parametrize("name", ["", "https://mill.example.org", "a/b"])
def test_what_is_no_name_of_a_host_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="--allow-host"):
        names_of([name])


@pytest.mark.parametrize(
    ("origin", "same"),
    [
        ("http://127.0.0.1:8788", True),
        ("https://127.0.0.1:8788", True),
        ("http://127.0.0.1:8789", False),
        ("http://evil.example", False),
        ("null", False),
        ("http://[", False),
        (None, False),
    ],
)
def test_an_action_comes_from_our_own_page(origin: str | None, same: bool) -> None:
    assert is_same_site(origin, "127.0.0.1:8788") is same


def test_a_session_ends_by_itself_and_when_somebody_signs_out() -> None:
    sessions = Sessions()
    (first, _), (second, guard) = sessions.begin(0.0), sessions.begin(0.0)

    sessions.end(first)

    assert sessions.find(first, 1.0) is None
    found = sessions.find(second, LASTS_S - 1)
    assert found is not None
    assert found.is_guard(guard)
    assert not found.is_guard(second)
    assert sessions.find(second, LASTS_S) is None
    assert sessions.find(None, 0.0) is None


def test_the_oldest_session_ends_for_one_too_many() -> None:
    sessions = Sessions()
    names = [sessions.begin(0.0)[0] for _ in range(MOST + 1)]

    assert sessions.find(names[0], 1.0) is None
    assert all(sessions.find(name, 1.0) for name in names[1:])
