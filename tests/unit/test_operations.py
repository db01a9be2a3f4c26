"""docs/operations.md names the test of each boundary; a name that leads nowhere shows nothing."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`([\w/]+\.py|…)(?:::(test_\w+))?`")


def named_tests() -> list[tuple[Path, str | None]]:
    """(file, test) in the order of the page; `…` is the first file of the section."""
    found = []
    for section in PAGE.split("\n## "):
        first = None
        for name, test in NAMED.findall(section):
            file = (
                first
                if name == "…"
                else ROOT / "tests" / re.sub("^boundaries", "end_to_end/boundaries", name)
            )
            assert file is not None
            first = first or file
            found.append((file, test or None))
    return found


@pytest.mark.parametrize(("file", "test"), named_tests(), ids=lambda each: getattr(each, "name", str(each)))
def test_every_test_that_the_page_names_is_there(file: Path, test: str | None) -> None:
    assert file.is_file()
    assert test is None or f"def {test}(" in file.read_text(encoding="utf-8")


def test_every_test_of_a_boundary_is_named() -> None:
    for file in (ROOT / "tests" / "end_to_end" / "boundaries").glob("test_*.py"):
        for test in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE):
            assert f"::{test}`" in PAGE, test
