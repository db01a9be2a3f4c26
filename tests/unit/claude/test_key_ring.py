"""Which keys may be used: those that end, those that are tried again, and how each stands."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from promptmill.claude.keys import Key, KeyRing, KeyStanding, Missing, Rest
from promptmill.errors import NoUsableKey

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GROUP = "claude-sonnet-5"
SOON = timedelta(minutes=1)


def a_key(label: str, account: str = "x", *, ends: datetime | None = None) -> Key:
    return Key(
        label,
        SecretStr(f"sk-{label}"),
        account,
        expires_at=ends,
        use_until=ends and ends - timedelta(seconds=10),
    )


def test_a_key_at_its_end_leaves_its_work_to_another() -> None:
    ring = KeyRing([a_key("a", ends=NOW + SOON), a_key("b")])
    assert ring.usable(GROUP, now=NOW)[0].label == "a"
    assert ring.usable(GROUP, now=NOW + SOON - timedelta(seconds=10))[0].label == "b"


def test_a_chosen_key_fits_no_more_once_it_was_replaced_refused_ended_or_its_account_rests() -> None:
    key = a_key("a", ends=NOW + SOON)
    ring = KeyRing([key])
    assert ring.still_fits(key, GROUP, NOW)
    assert not ring.still_fits(key, GROUP, NOW + SOON)
    ring.rest("x", Rest(NOW, None, "402"))
    assert not ring.still_fits(key, GROUP, NOW)
    ring.resumed(NOW)
    ring.retire(key, GROUP, "403")
    assert not ring.still_fits(key, GROUP, NOW)
    assert ring.still_fits(key, "claude-haiku-4-5", NOW)
    ring.refresh([a_key("b")])
    assert not ring.still_fits(key, "claude-haiku-4-5", NOW)


def test_when_the_only_key_ended_it_is_said() -> None:
    with pytest.raises(NoUsableKey) as caught:
        KeyRing([a_key("a", ends=NOW - SOON)]).usable(GROUP, now=NOW)
    assert caught.value.brief == "key a ended 2026-01-01 11:59:00 UTC"
    assert not caught.value.resting


def test_what_cannot_be_had_is_said() -> None:
    ring = KeyRing([])
    ring.refresh([], [Missing("vault", "x", "command", "the command ended with status 1")])
    with pytest.raises(NoUsableKey) as caught:
        ring.usable(GROUP, now=NOW)
    assert caught.value.brief == "key vault cannot be had (the command ended with status 1)"


def test_while_a_key_is_on_its_way_it_is_told() -> None:
    ring = KeyRing([])
    ring.refresh([], [Missing("vault", "x", "command", "no answer yet")])
    ring.expecting = lambda: True
    with pytest.raises(NoUsableKey) as caught:
        ring.usable(GROUP, now=NOW)
    assert caught.value.expecting


def test_a_refused_key_is_heard_of_once_it_is_refused_for_everything() -> None:
    heard: list[str] = []
    ring = KeyRing([a_key("a")])
    ring.on_refused = lambda key: heard.append(key.label)
    ring.retire(a_key("a"), GROUP, "403")
    assert heard == []
    ring.retire(a_key("a"), None, "401")
    assert heard == ["a"]


def test_a_key_that_was_replaced_meanwhile_cannot_be_retired() -> None:
    ring = KeyRing([a_key("new")])
    assert not ring.retire(a_key("old"), None, "401")
    assert ring.usable(GROUP, now=NOW)


def test_what_was_refused_before_a_person_said_go_on_is_forgiven_and_what_came_later_is_not() -> None:
    ring = KeyRing([a_key("a"), a_key("b")])
    ring.retire(a_key("a"), None, "401", NOW - SOON)
    ring.retire(a_key("b"), None, "401", NOW + SOON)
    ring.forgive(NOW)
    assert [key.label for key in ring.usable(GROUP, now=NOW)] == ["a"]


def test_the_same_key_with_another_end_stays_refused() -> None:
    ring = KeyRing([a_key("a", ends=NOW + SOON)])
    ring.retire(a_key("a"), None, "401")
    ring.refresh([a_key("a", ends=NOW + 2 * SOON)])
    with pytest.raises(NoUsableKey):
        ring.usable(GROUP, now=NOW)


def test_how_every_key_stands_is_told() -> None:
    keys = [a_key("fine"), a_key("gone"), a_key("ended", ends=NOW), a_key("capped", "y"), a_key("partly")]
    ring = KeyRing(keys)
    ring.refresh(keys, [Missing("vault", "x", "command", "no answer")])
    ring.retire(keys[1], None, "401")
    ring.rest("y", Rest(NOW, NOW + SOON, "spend limit"))
    ring.retire(keys[4], GROUP, "403")
    told = {state.label: state for state in ring.states(NOW)}
    assert {label: state.standing for label, state in told.items()} == {
        "fine": KeyStanding.USABLE,
        "gone": KeyStanding.REFUSED,
        "ended": KeyStanding.EXPIRED,
        "capped": KeyStanding.RESTING,
        "partly": KeyStanding.USABLE,
        "vault": KeyStanding.MISSING,
    }
    assert told["capped"].until == NOW + SOON
    assert told["partly"].refused_for == {GROUP: "403"}


def test_calls_are_counted_for_five_minutes() -> None:
    ring = KeyRing([a_key("a")])
    for minutes in (0, 3, 3, 6):
        ring.called(a_key("a"), NOW + timedelta(minutes=minutes))
    (state,) = ring.states(NOW + timedelta(minutes=6))
    assert (state.calls, state.used_at) == (3, NOW + timedelta(minutes=6))
