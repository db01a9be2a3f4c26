"""Keys: which one is used, which one is out, and that no value is ever shown."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from promptmill.claude.keys import Key, KeyRing, configured_account, load_keys, rehearsing
from promptmill.errors import ConfigurationError, NoUsableKey

GROUP = "claude-opus-5"


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
        ("key = ['sk-ant-CANARY']", "key 1 is not a table"),
        ("[[key]]\nlabel = 'a'", "either key or file"),
        ("[[key]]\nlabel = 'a'\nkey = 'sk-ant-CANARY'\nfile = 'f'", "either key or file"),
        ("[[key]]\nlabel = 'a'\nkey = 'sk-ant-CANARY'\nkeys = 'x'", "either key or file"),
        ("[[key]]\nlabel = 7\nkey = 'sk-ant-CANARY'", "key 1"),
        ("[[key]]\nlabel = 'a'\nkey = ''", "key 1"),
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
    assert rehearsing("research") == "simulated/research"
    assert configured_account("simulated/research") == configured_account("research") == "research"
