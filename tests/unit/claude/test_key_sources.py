"""How keys are declared: their header, their end, commands and functions; and what a wrong file is told."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from promptmill.claude.keys import Header, SourceKind, declared_keys, load_keys
from promptmill.errors import ConfigurationError

KEY = "[[key]]\nlabel = 'a'\nkey = 'sk-ant-CANARY'\n"


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.touch(mode=0o600)
    return path


def test_a_key_may_say_when_it_ends_and_how_it_travels(keys_file: Path) -> None:
    keys_file.write_text(KEY + "expires = 2026-12-01T01:00:00+01:00\nheader = 'bearer'\n")
    (key,) = load_keys(None, keys_file)
    assert key.expires_at == datetime(2026, 12, 1, tzinfo=UTC)
    assert key.use_until == datetime(2026, 11, 30, 23, 59, 50, tzinfo=UTC)
    assert key.header is Header.BEARER


@pytest.mark.parametrize(
    ("secret", "header"), [("sk-ant-api03-x", Header.X_API_KEY), ("sk-ant-oat01-x", Header.BEARER)]
)
def test_an_access_token_travels_as_bearer_by_itself(secret: str, header: Header) -> None:
    (key,) = load_keys(SecretStr(secret))
    assert key.header is header


def test_what_is_fetched_is_declared_and_nothing_is_run(keys_file: Path, tmp_path: Path) -> None:
    keys_file.write_text(
        f"[[key]]\nlabel = 'a'\ncommand = ['touch', '{tmp_path / 'ran'}']\ntimeout_s = 3\n"
        "[[key]]\nlabel = 'b'\nprovider = 'ours.tokens:claude'\nrefresh_s = 60\n"
    )
    first, second = declared_keys(None, keys_file)
    assert (first.kind, first.timeout_s) == (SourceKind.COMMAND, 3)
    assert (second.kind, second.provider, second.refresh_s) == (
        SourceKind.PROVIDER,
        "ours.tokens:claude",
        60,
    )
    assert load_keys(None, keys_file) == ()
    assert not (tmp_path / "ran").exists()


def test_a_file_that_anybody_may_write_runs_no_command(keys_file: Path) -> None:
    keys_file.write_text("[[key]]\ncommand = ['true']\n")
    keys_file.chmod(0o666)
    with pytest.raises(ConfigurationError, match=r"others may write .*chmod go-w"):
        declared_keys(None, keys_file)
    keys_file.write_text(KEY)
    assert len(declared_keys(None, keys_file)) == 1


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_nor_one_that_the_group_may_write(keys_file: Path, mode: int) -> None:
    keys_file.write_text("[[key]]\ncommand = ['true']\n")
    keys_file.chmod(mode)
    with pytest.raises(ConfigurationError, match="others may write"):
        declared_keys(None, keys_file)


def test_nor_one_that_anybody_may_replace(keys_file: Path) -> None:
    keys_file.write_text("[[key]]\ncommand = ['true']\n")
    keys_file.chmod(0o600)
    folder = keys_file.parent
    before = folder.stat().st_mode
    try:
        folder.chmod(0o777)
        with pytest.raises(ConfigurationError, match="anybody may replace"):
            declared_keys(None, keys_file)
        folder.chmod(0o1777)
        assert len(declared_keys(None, keys_file)) == 1
    finally:
        folder.chmod(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_nor_one_of_another_user(keys_file: Path) -> None:
    keys_file.write_text("[[key]]\nprovider = 'a:b'\n")
    os.chown(keys_file, 12345, 12345)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        declared_keys(None, keys_file)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (KEY + "expires = '2026-12-01'", "expires of key a in .* is written without quotes"),
        (KEY + "expires = 2026-12-01T00:00:00", "with a zone"),
        (KEY + "header = 'cookie'", "header of key a in .* is one of: x-api-key, bearer"),
        (KEY + "timeout_s = 3", "no field timeout_s"),
        ("[[key]]\nlabel = \"a\\u001b[31m\"\nkey = 'CANARY'", "label of key 1 in .* is a text of one line"),
        ("[[key]]\ncommand = 'vault read CANARY'", "is a list of texts"),
        ("[[key]]\ncommand = []", "is a list of texts"),
        ("[[key]]\nprovider = 'CANARY'", "module:function"),
        ("[[key]]\ncommand = ['x']\ntimeout_s = 0", "number of seconds above 0"),
        ("[[key]]\ncommand = ['x']\nrefresh_s = inf", "number of seconds above 0"),
    ],
)
def test_a_wrong_entry_is_explained_without_a_value(keys_file: Path, text: str, why: str) -> None:
    keys_file.write_text(text)
    with pytest.raises(ConfigurationError, match=why) as caught:
        declared_keys(None, keys_file)
    assert "CANARY" not in str(caught.value)
    assert caught.value.__context__ is None


def test_the_file_of_the_one_key_is_read_when_its_value_is_wanted(tmp_path: Path) -> None:
    place = tmp_path / "key"
    (source,) = declared_keys(api_key_file=place)
    with pytest.raises(ConfigurationError, match=r"^ANTHROPIC_API_KEY_FILE: .*FileNotFoundError"):
        source.read()
    place.write_text("sk-ant-1\n")
    assert source.read().secret.get_secret_value() == "sk-ant-1"


def test_the_variable_stands_over_the_file(tmp_path: Path) -> None:
    (source,) = declared_keys(SecretStr("sk-ant-1"), api_key_file=tmp_path / "key")
    assert source.kind is SourceKind.VARIABLE
