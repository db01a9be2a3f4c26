"""`promptmill purge` asks a person first: what is not agreed to is not done, and said so."""

import io

import pytest
import typer

from producers.cli.exits import Exit
from producers.cli.purge import _agrees


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "agreed", "said"), [("y\n", True, ""), ("n\n", False, "nothing was deleted\n")]
)
def test_an_answer_is_taken_at_its_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, agreed: bool, said: str
) -> None:
    monkeypatch.setattr("sys.stdin", _Terminal(typed))

    assert _agrees() is agreed
    assert capsys.readouterr().err.partition("[y/N]:")[2] == said


def test_no_answer_at_all_deletes_nothing_and_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", _Terminal(""))

    with pytest.raises(typer.Exit) as left:
        _agrees()

    assert left.value.exit_code == Exit.INTERRUPTED
    assert capsys.readouterr().err.endswith("\nnothing was deleted\n")
