"""`promptmill run -o`: what would harm the user's own files is refused before anything starts."""

from pathlib import Path

import pytest
import typer

from producers.cli.run import _check_output


def test_the_input_is_never_replaced_by_the_output(tmp_path: Path) -> None:
    source = tmp_path / "prompts.jsonl"
    source.write_text("{}\n")
    with pytest.raises(typer.BadParameter, match="is the input"):
        _check_output(str(source), source, as_json=False)


def test_results_and_a_json_document_do_not_share_standard_output(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="--json"):
        _check_output("prompts.jsonl", Path("-"), as_json=True)


def test_an_output_folder_that_does_not_exist_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="does not exist"):
        _check_output("prompts.jsonl", tmp_path / "no" / "out.jsonl", as_json=False)


def test_another_file_is_fine(tmp_path: Path) -> None:
    _check_output("prompts.jsonl", tmp_path / "out.jsonl", as_json=False)
