"""The image has what requirements.lock names and nothing else: every module of ours is imported with only that.

A development environment hides what is missing, because some tool of it brings the package along.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests/unit/production_imports.py"


def test_everything_can_be_imported_with_what_the_image_has() -> None:
    done = subprocess.run(
        [sys.executable, "-P", PROGRAM, ROOT / "requirements.lock"],
        env={"PROMPTMILL_REDIS_URL": "redis://127.0.0.1:6379/0"},  # read when Celery's app is imported
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100  # modules
