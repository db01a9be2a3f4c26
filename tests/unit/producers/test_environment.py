"""Child processes get the settings that hold, and the key in no other way than this."""

from pathlib import Path

from producers.environment import environment_for, with_values
from promptmill import settings


def test_a_child_reads_the_very_settings_its_parent_has(tmp_path: Path) -> None:
    parent = settings.load(
        environ={"CLAUDE_KEY": "sk-ant-secret", "REDIS_URL": "redis://127.0.0.1:1/0", "PROMPTMILL_RPM": "60"},
        folder=tmp_path,
        worker__concurrency=7,
    )

    child = settings.load(environ=environment_for(parent, {"PATH": "/bin"}), folder=tmp_path)

    assert child.redis_url == "redis://127.0.0.1:1/0"
    assert child.limits.rpm == 60
    assert child.worker.concurrency == 7
    assert child.claude.read_api_key() == parent.claude.read_api_key()


def test_the_rest_of_the_surroundings_stays(tmp_path: Path) -> None:
    environment = environment_for(settings.load(environ={}, folder=tmp_path), {"PATH": "/bin"})

    assert environment["PATH"] == "/bin"


def test_a_second_name_for_a_setting_does_not_win_over_the_value_that_holds(tmp_path: Path) -> None:
    parent = settings.load(environ={"REDIS_URL": "redis://127.0.0.1:1/0"}, folder=tmp_path)
    changed = with_values(parent, "embedded", redis_url="redis://127.0.0.1:2/0")

    environment = environment_for(changed, {"REDIS_URL": "redis://127.0.0.1:1/0"})

    assert settings.load(environ=environment, folder=tmp_path).redis_url == "redis://127.0.0.1:2/0"


def test_a_changed_value_says_where_it_is_from(tmp_path: Path) -> None:
    changed = with_values(
        settings.load(environ={}, folder=tmp_path), "simulator", claude__base_url="http://127.0.0.1:9"
    )

    assert changed.claude.base_url == "http://127.0.0.1:9"
    assert changed.origins["claude.base_url"] == "simulator"


def test_the_data_folder_is_the_same_from_any_working_directory(tmp_path: Path) -> None:
    parent = settings.load(environ={"PROMPTMILL_HOME": "data"}, folder=tmp_path)

    assert Path(environment_for(parent, {})["PROMPTMILL_HOME"]).is_absolute()


def test_an_admin_key_stays_with_the_command_that_was_given_it(tmp_path: Path) -> None:
    surroundings = {"ANTHROPIC_ADMIN_KEY": "sk-ant-admin01-secret", "ANTHROPIC_ADMIN_KEY_FILE": "admin.key"}
    parent = settings.load(environ=surroundings, folder=tmp_path)

    environment = environment_for(parent, surroundings)

    assert not [name for name in environment if "ADMIN" in name]
