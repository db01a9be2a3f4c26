"""The documentation tells of every command, option and setting, and its examples are what they say."""

import re
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from producers.cli.app import app
from promptmill import settings
from promptmill.catalogue import Catalogue
from promptmill.pricing import PriceBook

ROOT = Path(__file__).parents[2]
CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]

COMMANDS = dict(get_command(app).commands)  # type: ignore[attr-defined]  # a Typer group, which its stub does not say
SHARED_WITH_SUBMIT = {"run"}


def section(command: str) -> str:
    """The part of the page that is about a command."""
    for heading, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", CLI, flags=re.MULTILINE | re.DOTALL):
        if command in heading.split(", "):
            return str(body)
    pytest.fail(f"docs/cli.md has no section about {command}")


def options_of(command: str) -> list[str]:
    long = [name for each in COMMANDS[command].params for name in each.opts if name.startswith("--")]
    return [name for name in long if name != "--help"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_section(command: str) -> None:
    assert f"promptmill {command}" in section(command)


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command in COMMANDS for option in options_of(command)]
)
def test_every_option_is_told(command: str, option: str) -> None:
    told = section(command) + (section("submit") if command in SHARED_WITH_SUBMIT else "")

    assert re.search(rf"{re.escape(option)}\b", told)


def test_no_command_is_told_that_is_not_there() -> None:
    headings = re.findall(r"^## (.+)$", CLI, flags=re.MULTILINE)

    assert {name for heading in headings for name in heading.split(", ")} == set(COMMANDS)


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, names in settings.VARIABLES.items() for name in names]
)
def test_every_setting_is_told_by_all_its_names(path: str, name: str) -> None:
    row = next((line for line in SETTINGS.splitlines() if f"`{name}`" in line and line.startswith("|")), None)

    assert row is not None, f"docs/settings.md has no row for {name}"
    assert f"`{path}`" in row


@pytest.mark.parametrize(
    "path", [path for path in settings.VARIABLES if path.startswith(("worker.", "claude."))]
)
def test_a_number_that_is_told_as_the_default_is_the_default(path: str) -> None:
    group, field = path.split(".")
    default = getattr(getattr(settings.Settings(), group), field)
    row = next(line for line in SETTINGS.splitlines() if f"`{path}`" in line)

    told = row.split("|")[-2].strip().strip("`")

    if isinstance(default, int | float):
        assert float(told) == default


def test_every_name_that_is_told_is_a_setting() -> None:
    names = {name for names in settings.VARIABLES.values() for name in names} | {"PROMPTMILL_DEBUG"}

    told = set(
        re.findall(r"`((?:PROMPTMILL|ANTHROPIC|CLAUDE|REDIS|DATABASE|RATE)_[A-Z_]+)(?:=[^`]*)?`", SETTINGS)
    )

    assert told <= names


def test_the_toml_of_the_settings_page_is_understood(tmp_path: Path) -> None:
    keys, *ours = re.findall(r"```toml\n(.*?)```", SETTINGS, flags=re.DOTALL)
    (tmp_path / "promptmill.toml").write_text("\n".join(ours), encoding="utf-8")

    found = settings.load(environ={}, folder=tmp_path)

    assert "key" in tomllib.loads(keys)
    assert found.limits.of("claude-opus-4.x").rpm == 50
    assert Catalogue(found.models).find_model("claude-new-6") is not None
    PriceBook(found.prices)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))

    for link in links:
        assert link.startswith("https://") or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_in_an_example_exists(page: Path) -> None:
    for block in re.findall(
        r"```(?:sh|console)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL
    ):
        for command in re.findall(r"(?:^|[$|&;] ?)promptmill ([a-z]+)", block, flags=re.MULTILINE):
            assert command in COMMANDS
