"""Child processes get the settings that hold, and the key in no other way than this."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from producers.environment import environment_for, with_values
from promptmill import settings

ADMIN_KEY = "sk-ant-admin01-secret"


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
    assert child.claude.api_key == parent.claude.api_key is not None


def test_the_rest_of_the_surroundings_stays(tmp_path: Path) -> None:
    environment = environment_for(settings.load(environ={}, folder=tmp_path), {"PATH": "/bin"})

    assert environment["PATH"] == "/bin"


def test_a_child_does_not_say_again_what_is_misspelt(tmp_path: Path) -> None:
    environment = environment_for(settings.load(environ={}, folder=tmp_path), {"PROMPTMILL_RMP": "5"})

    assert environment["PROMPTMILL_CHILD"] == "1"


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
    surroundings = {"ANTHROPIC_ADMIN_KEY": ADMIN_KEY, "ANTHROPIC_ADMIN_KEY_FILE": "admin.key"}
    parent = settings.load(environ=surroundings, folder=tmp_path, with_admin_key=True)

    environment = environment_for(parent, surroundings)

    assert parent.claude.read_admin_key() is not None
    assert not [name for name in environment if "ADMIN" in name]


def test_only_a_worker_is_given_what_notices_are_signed_with(tmp_path: Path) -> None:
    for name in ("PROMPTMILL_WEBHOOK_SECRET", "PROMPTMILL_WEBHOOK_SECRET_FILE"):
        surroundings = {name: "somewhere"}
        parent = settings.load(environ=surroundings, folder=tmp_path)

        assert name in environment_for(parent, surroundings, is_worker=True)
        assert name not in environment_for(parent, surroundings)


WHAT_A_WORKER_HOLDS = """
import os
import celeryconfig
from promptmill import settings

def secrets(values):
    for value in values.values():
        if isinstance(value, dict):
            yield from secrets(value)
        elif hasattr(value, "get_secret_value"):
            yield value.get_secret_value()

for held in (settings.load(), celeryconfig._settings):
    print([*secrets(held.model_dump()), held.claude.admin_key_file, held.origins.get("claude.admin_key")])
print([name for name in os.environ if "ADMIN" in name])
"""


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (".env", f"ANTHROPIC_API_KEY=sk-ant-usual\nANTHROPIC_ADMIN_KEY={ADMIN_KEY}\n"),
        (".env", "ANTHROPIC_API_KEY=sk-ant-usual\nANTHROPIC_ADMIN_KEY_FILE=admin.key\n"),
        ("promptmill.toml", f'[claude]\napi_key = "sk-ant-usual"\nadmin_key = "{ADMIN_KEY}"\n'),
    ],
)
def test_a_worker_does_not_read_an_admin_key_from_the_files_of_its_folder(
    tmp_path: Path, file: str, text: str
) -> None:
    (tmp_path / file).write_text(text)
    (tmp_path / "admin.key").write_text(ADMIN_KEY)
    parent = settings.load(environ={}, folder=tmp_path, with_admin_key=True)
    assert parent.claude.admin_key or parent.claude.admin_key_file

    child = subprocess.run(
        [sys.executable, "-c", WHAT_A_WORKER_HOLDS],
        env=environment_for(parent, dict(os.environ)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert child.stdout.splitlines() == ["['sk-ant-usual', None, None]"] * 2 + ["[]"]
