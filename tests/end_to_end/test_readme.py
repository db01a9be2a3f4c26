"""What the README and the quickstart show is typed here, block by block, in one folder, as a reader would."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
NO_LIMITS = {"PROMPTMILL_RPM": "0", "PROMPTMILL_ITPM": "0", "PROMPTMILL_OTPM": "0"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def blocks(page: str) -> list[tuple[str, str]]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```(sh|python)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def type_in(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    scripts = Path(sys.executable).parent
    environment = {**os.environ, **NO_LIMITS, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_every_block_of_the_page_works_as_it_stands(page: str, tmp_path: Path) -> None:
    shown = blocks(page)
    assert {language for language, _ in shown} == {"sh", "python"}

    port = str(free_port())
    for language, as_shown in shown:
        # Somebody may run a simulator of their own, and a tenth of the prompts shows as much.
        block = as_shown.replace("8787", port).replace("seq 1 60", "seq 1 6")
        if needs_running_workers(block):
            continue
        command = (
            ["bash", "-euo", "pipefail", "-c", block] if language == "sh" else [sys.executable, "-c", block]
        )
        done = type_in(command, tmp_path)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr


def test_the_blocks_that_ask_running_workers_work_beside_them(
    tmp_path: Path, wait_for_worker: Callable[[Path], None]
) -> None:
    asking = [block for language, block in blocks("README.md") if needs_running_workers(block)]
    assert asking
    environment = {**os.environ, **NO_LIMITS}
    with subprocess.Popen(
        [sys.executable, "-m", "producers.cli", "up", "--flower-port", "0", "--dashboard-port", "0"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as standing:
        try:
            assert standing.stderr is not None
            while "Ctrl-C stops" not in standing.stderr.readline():
                assert standing.poll() is None
            wait_for_worker(tmp_path)
            for block in asking:
                done = type_in([sys.executable, "-c", block], tmp_path)
                assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        finally:
            standing.terminate()


@pytest.mark.parametrize("example", ["labels.py"])
def test_an_example_runs(example: str, tmp_path: Path) -> None:
    done = type_in([sys.executable, str(ROOT / "examples" / example)], tmp_path)

    assert done.returncode == 0, done.stderr
    assert "are urgent" in done.stdout


def test_the_evaluation_reads_a_file_of_questions(tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text(
        '{"question": "What is 2 + 2?", "answer": "2 + 2 = 4\\n#### 4"}\n', encoding="utf-8"
    )

    done = type_in([sys.executable, str(ROOT / "examples" / "evaluate.py"), "questions.jsonl"], tmp_path)

    assert done.returncode == 0, done.stderr
    assert "of 1 right" in done.stdout


def needs_running_workers(block: str) -> bool:
    return "submit(" in block
