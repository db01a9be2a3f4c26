"""Keys: which one is used, which one is out, and that no value is ever shown."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from promptmill.claude.keys import (
    PROBE_EVERY,
    PROBE_PATIENCE,
    Key,
    KeyRing,
    Rest,
    configured_account,
    load_keys,
    rehearsing,
)
from promptmill.errors import ConfigurationError, NoUsableKey

GROUP = "claude-opus-5"
NOW = datetime(2026, 11, 23, tzinfo=UTC)
LIFTS = datetime(2026, 12, 1, tzinfo=UTC)


def key(label: str, account: str = "default", secret: str = "sk-ant-CANARY") -> Key:
    return Key(label, SecretStr(secret), account)


def test_the_first_key_is_picked() -> None:
    assert KeyRing([key("a"), key("b")]).pick(GROUP).label == "a"


def test_a_retired_key_is_out_for_every_group() -> None:
    ring = KeyRing([key("a"), key("b")])
    ring.retire(key("a"), None, "401")
    assert ring.pick(GROUP).label == "b"
    assert ring.pick("claude-sonnet-5").label == "b"


def test_a_key_retired_for_one_group_serves_the_others() -> None:
    ring = KeyRing([key("a"), key("b")])
    ring.retire(key("a"), GROUP, "403")
    assert ring.pick(GROUP).label == "b"
    assert ring.pick("claude-sonnet-5").label == "a"


def test_no_usable_key_says_why_by_label() -> None:
    ring = KeyRing([key("a"), key("b")])
    ring.retire(key("a"), None, "401 authentication_error")
    ring.retire(key("b"), GROUP, "403 permission_error")
    with pytest.raises(NoUsableKey, match="a: 401 authentication_error; b: 403 permission_error") as caught:
        ring.pick(GROUP)
    assert "CANARY" not in str(caught.value)


def test_no_key_at_all_names_the_setting() -> None:
    with pytest.raises(NoUsableKey, match="ANTHROPIC_API_KEY"):
        KeyRing([]).pick(GROUP)


def test_a_replaced_secret_is_a_new_key_and_an_unchanged_one_stays_out() -> None:
    ring = KeyRing([key("a"), key("b")])
    ring.retire(key("a"), None, "401")
    ring.retire(key("b"), None, "401")
    ring.refresh([key("a"), key("b", secret="sk-ant-new")])
    assert ring.pick(GROUP).label == "b"


def test_every_account_has_its_first_usable_key_in_order() -> None:
    ring = KeyRing([key("a", "x"), key("b", "y"), key("c", "x")])
    assert [each.label for each in ring.usable(GROUP)] == ["a", "b"]


def capped(until: datetime | None = LIFTS, since: datetime = NOW) -> Rest:
    return Rest(since, until, "429 spend limit")


def test_an_account_that_rests_leaves_its_calls_to_the_other() -> None:
    ring = KeyRing([key("a", "x"), key("b", "y"), key("c", "x")])
    ring.rest("x", capped())
    assert [each.label for each in ring.usable(GROUP, now=NOW)] == ["b"]


def test_a_rest_ends_when_its_time_is_over_and_never_where_nobody_knows() -> None:
    ring = KeyRing([key("a", "x"), key("b", "y")])
    ring.rest("x", capped())
    ring.rest("y", capped(until=None))
    assert [each.label for each in ring.usable(GROUP, now=LIFTS)] == ["a"]


def test_a_rest_is_forgotten_when_a_batch_went_on_after_it_began() -> None:
    ring = KeyRing([key("a")])
    ring.rest("default", capped(until=None))
    ring.resumed(NOW - timedelta(seconds=1))
    with pytest.raises(NoUsableKey):
        ring.usable(GROUP, now=NOW)
    ring.resumed(NOW + timedelta(seconds=1))
    assert ring.usable(GROUP, now=NOW)


def test_a_call_sent_before_a_resume_and_refused_after_it_proves_nothing() -> None:
    ring = KeyRing([key("a")])
    ring.resumed(NOW)
    ring.rest("default", capped(until=None, since=NOW - timedelta(seconds=1)))
    assert ring.usable(GROUP, now=NOW)
    ring.rest("default", capped(until=None, since=NOW + timedelta(seconds=1)))
    with pytest.raises(NoUsableKey):
        ring.usable(GROUP, now=NOW)


def test_of_several_refusals_the_call_sent_last_says_since_when_an_account_rests() -> None:
    ring = KeyRing([key("a")])
    ring.rest("default", capped(since=NOW + timedelta(seconds=2)))
    ring.rest("default", capped(since=NOW))
    ring.resumed(NOW + timedelta(seconds=1))
    with pytest.raises(NoUsableKey) as caught:
        ring.usable(GROUP, now=NOW)
    assert caught.value.since == NOW + timedelta(seconds=2)


def test_a_rest_without_a_date_is_tried_once_in_ten_minutes_and_one_with_a_date_is_not() -> None:
    ring = KeyRing([key("a", "x"), key("b", "y")])
    ring.rest("x", capped(until=None))
    ring.rest("y", capped())
    later = NOW + PROBE_EVERY
    assert ring.probe(GROUP, later - timedelta(seconds=1)) is None
    assert ring.probe(GROUP, later) == key("a", "x")
    assert ring.probe(GROUP, later) is None
    assert ring.probe(GROUP, later + PROBE_EVERY) == key("a", "x")


def test_while_such_a_try_is_in_flight_the_others_are_told_so_and_an_answer_ends_the_rest() -> None:
    ring = KeyRing([key("a")])
    ring.rest("default", capped(until=None))
    later = NOW + PROBE_EVERY
    ring.probe(GROUP, later)
    for now, asking in ((later, True), (later + PROBE_PATIENCE, False)):
        with pytest.raises(NoUsableKey) as caught:
            ring.usable(GROUP, now=now)
        assert caught.value.asking is asking
    ring.answered("default", sent_at=NOW)  # one sent long ago says nothing
    with pytest.raises(NoUsableKey):
        ring.usable(GROUP, now=later)
    ring.answered("default", sent_at=later)
    assert ring.usable(GROUP, now=later)


def test_no_account_left_says_when_the_first_comes_back() -> None:
    ring = KeyRing([key("a", "x"), key("b", "y"), key("c", "z")])
    ring.rest("x", capped(LIFTS + timedelta(days=1)))
    ring.rest("y", capped())
    ring.retire(key("c", "z"), None, "401")
    with pytest.raises(NoUsableKey, match="until 2026-12-01 00:00 UTC: 429 spend limit") as caught:
        ring.usable(GROUP, now=NOW)
    assert (caught.value.resting, caught.value.everywhere, caught.value.until) == (True, True, LIFTS)
    assert caught.value.brief == "spend limit reached; goes on 2026-12-01 00:00 UTC"


def test_why_no_key_is_left_is_said_in_a_few_words() -> None:
    ring = KeyRing([key("main", "x"), key("b", "x")])
    ring.retire(key("main", "x"), None, "401 authentication_error: invalid x-api-key")
    ring.retire(key("b", "x"), GROUP, "403 permission_error: no")
    with pytest.raises(NoUsableKey) as refused:
        ring.usable(GROUP, now=NOW)
    assert refused.value.brief == "key main was refused (401 invalid x-api-key), and 1 more"

    ring = KeyRing([key("a", "x")])
    ring.rest("x", Rest(NOW, None, "402 billing_error: " + "credit " * 50))
    with pytest.raises(NoUsableKey) as resting:
        ring.usable(GROUP, now=NOW)
    assert resting.value.brief.startswith("the account cannot call (402 credit credit")
    assert len(resting.value.brief) < 120


def test_a_key_that_is_refused_for_one_group_alone_may_serve_another() -> None:
    ring = KeyRing([key("a", "x"), key("b", "y")])
    ring.rest("x", capped())
    ring.retire(key("b", "y"), GROUP, "403")
    with pytest.raises(NoUsableKey) as caught:
        ring.usable(GROUP, now=NOW)
    assert (caught.value.resting, caught.value.everywhere) == (True, False)


def test_refused_keys_alone_are_no_rest() -> None:
    ring = KeyRing([key("a", "x")])
    ring.rest("x", capped())
    ring.retire(key("a", "x"), None, "401")
    with pytest.raises(NoUsableKey) as caught:
        ring.usable(GROUP, now=NOW)
    assert (caught.value.resting, caught.value.until) == (False, None)


def test_a_key_shows_its_label_and_never_its_value() -> None:
    assert "CANARY" not in f"{key('a')!r} {key('a')}"


def test_the_simple_key_has_the_default_label_and_account() -> None:
    assert load_keys(SecretStr(" sk-ant-1\n")) == (Key("default", SecretStr("sk-ant-1"), "default"),)


@pytest.mark.parametrize("blank", [None, SecretStr(""), SecretStr(" \n")])
def test_a_blank_key_is_no_key(blank: SecretStr | None) -> None:
    assert load_keys(blank) == ()


def test_a_file_holds_several_keys_and_may_point_to_others(tmp_path: Path) -> None:
    (tmp_path / "b.key").write_text("sk-ant-b\n")
    keys_file = tmp_path / "keys.toml"
    keys_file.write_text(
        '[[key]]\nlabel = "a"\nkey = "sk-ant-a"\naccount = "x"\n[[key]]\nlabel = "b"\nfile = "b.key"\n'
    )
    assert load_keys(SecretStr("sk-ant-0"), keys_file) == (
        Key("default", SecretStr("sk-ant-0"), "default"),
        Key("a", SecretStr("sk-ant-a"), "x"),
        Key("b", SecretStr("sk-ant-b"), "default"),
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no .*key.* table"),
        ("key = 'sk-ant-CANARY'", "no .*key.* table"),
        ("key = ['sk-ant-CANARY']", r"key 1 in .*keys.toml is not a table"),
        ("[[key]]\nlabel = 'a'", "one of key, file"),
        ("[[key]]\nlabel = 'a'\nkey = 'sk-ant-CANARY'\nfile = 'f'", "one of key, file"),
        (
            "[[key]]\nlabel = 'a'\nkey = 'sk-ant-CANARY'\nkeys = 'x'",
            r"key a in .*keys.toml has no field keys; did you mean key\?",
        ),
        (
            "[[key]]\nlabel = 'new'\nkey = 'sk-ant-CANARY'\nacount = 'x'",
            r"key new in .*keys.toml has no field acount; did you mean account\?",
        ),
        (
            "[[key]]\nlable = 'a'\nkey = 'sk-ant-CANARY'",
            r"key 1 in .*keys.toml has no field lable; did you mean label\?",
        ),
        ("[[key]]\nlabel = 'a'\nkye = 'sk-ant-CANARY'", r"no field kye; did you mean key\?"),
        (
            "[[key]]\nlabel = 'a'\nkey = 'sk-ant-CANARY'\ntimeout_s = 3",
            "no field timeout_s: it is not fetched",
        ),
        ("[[key]]\nlabel = 7\nkey = 'sk-ant-CANARY'", "key 1"),
        ("[[key]]\nlabel = 'a'\nkey = ''", "key a"),
        ("[[key]]\nlabel = 'a'\nkey = 'sk-ant CANARY'", "key a"),
        ("[[key]]\nlabel = 'a'\nkey = 'sk-ant-CANARYé'", "key a"),
        ("[[key]]\nlabel = 'a'\nkey = '''sk-ant\nCANARY'''", "key a"),
        ("[[key]]\nlabel = 'a'\nfile = 'missing'", "key a .*missing"),
        ("[[key]]\nlabel = 'a'\nkey = 'sk-ant-CANARY", "cannot be read .Expected"),
        ("[[key]]\nlabel='a'\nkey='sk-ant-CANARY'\n[[key]]\nlabel='a'\nkey='k'", "labelled a"),
    ],
)
def test_a_wrong_file_is_explained_without_a_value(tmp_path: Path, text: str, why: str) -> None:
    keys_file = tmp_path / "keys.toml"
    keys_file.write_text(text)
    with pytest.raises(ConfigurationError, match=why) as caught:
        load_keys(None, keys_file)
    assert caught.value.setting == "PROMPTMILL_KEYS_FILE"
    assert "CANARY" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml cannot be read \(FileNotFoundError\)"):
        load_keys(None, tmp_path / "nowhere.toml")


def test_a_key_that_cannot_travel_in_a_header_names_its_setting() -> None:
    with pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY") as caught:
        load_keys(SecretStr("schlüssel"))
    assert "schl" not in str(caught.value)


def test_what_a_simulator_allows_is_kept_apart_from_the_account_it_stands_for() -> None:
    assert rehearsing("research", "http://127.0.0.1:8787") == "simulated/research@127.0.0.1:8787"
    assert configured_account("simulated/research@127.0.0.1:8787") == "research"


def test_each_simulator_has_limits_of_its_own() -> None:
    assert rehearsing("research", "http://127.0.0.1:8787") != rehearsing("research", "http://127.0.0.1:8788")


@pytest.mark.parametrize("account", ["research", "me@example.com", "simulated", "a/b"])
def test_the_account_of_a_person_is_found_again_in_the_name_of_its_limits(account: str) -> None:
    assert configured_account(account) == account
    assert configured_account(rehearsing(account, "https://[::1]:8787/a/proxy")) == account
