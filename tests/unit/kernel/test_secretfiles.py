"""Secrets in files: an address is in full as soon as the settings are read, and no error repeats a password."""

from pathlib import Path

import pytest

from producers.environment import environment_for
from promptmill import settings
from promptmill.errors import ConfigurationError

POSTGRES = "postgresql://promptmill@postgres:5432/promptmill"


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("p@ss/word\n")
    return file


def test_a_password_in_a_file_becomes_a_part_of_the_address(tmp_path: Path, password: Path) -> None:
    environ = {
        "PROMPTMILL_DATABASE_URL": POSTGRES,
        "PROMPTMILL_DATABASE_PASSWORD_FILE": str(password),
        "PROMPTMILL_REDIS_URL": "rediss://redis:6379/0",
        "PROMPTMILL_REDIS_PASSWORD_FILE": str(password),
    }

    found = settings.load(environ=environ, folder=tmp_path)

    assert found.database_url == "postgresql://promptmill:p%40ss%2Fword@postgres:5432/promptmill"
    assert found.redis_url == "rediss://:p%40ss%2Fword@redis:6379/0"


def test_a_whole_address_can_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "broker").write_text("amqp://somebody:something@rabbit:5672//\n")

    found = settings.load(environ={"PROMPTMILL_BROKER_URL_FILE": str(tmp_path / "broker")}, folder=tmp_path)

    assert found.broker_url == "amqp://somebody:something@rabbit:5672//"
    assert found.origins["broker_url"] == f"file ({tmp_path / 'broker'})"


def test_what_is_given_directly_stands_and_no_file_is_read(tmp_path: Path) -> None:
    environ = {
        "PROMPTMILL_DATABASE_URL": "postgresql://promptmill:known@postgres/promptmill",
        "PROMPTMILL_DATABASE_URL_FILE": "nowhere",
        "PROMPTMILL_DATABASE_PASSWORD_FILE": "nowhere",
    }

    assert settings.load(environ=environ, folder=tmp_path).database_url == environ["PROMPTMILL_DATABASE_URL"]


def test_a_child_process_reads_the_same_address(tmp_path: Path, password: Path) -> None:
    environ = {"PROMPTMILL_DATABASE_URL": POSTGRES, "PROMPTMILL_DATABASE_PASSWORD_FILE": str(password)}
    ours = settings.load(environ=environ, folder=tmp_path)

    theirs = settings.load(environ=environment_for(ours, environ), folder=tmp_path)

    assert theirs.database_url == ours.database_url


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        (
            {"PROMPTMILL_REDIS_PASSWORD_FILE": "password"},
            "PROMPTMILL_REDIS_PASSWORD_FILE: there is no server it is for; set PROMPTMILL_REDIS_URL, without the password",
        ),
        (
            {
                "PROMPTMILL_DATABASE_URL": "sqlite:///promptmill.db",
                "PROMPTMILL_DATABASE_PASSWORD_FILE": "password",
            },
            "PROMPTMILL_DATABASE_PASSWORD_FILE: there is no server it is for; set PROMPTMILL_DATABASE_URL, without the password",
        ),
        (
            {"PROMPTMILL_DATABASE_URL": POSTGRES, "PROMPTMILL_DATABASE_PASSWORD_FILE": "nowhere"},
            "PROMPTMILL_DATABASE_PASSWORD_FILE: nowhere cannot be read (FileNotFoundError)",
        ),
        ({"PROMPTMILL_REDIS_URL_FILE": "empty"}, "PROMPTMILL_REDIS_URL_FILE: empty is empty"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_variable(
    environ: dict[str, str], fault: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()  # every test runs in a folder of its own

    with pytest.raises(ConfigurationError) as told:
        settings.load(environ=environ, folder=tmp_path)

    assert str(told.value) == fault
