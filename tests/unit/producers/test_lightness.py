"""Asking costs little: what a producer loads before it is asked for anything."""

import subprocess
import sys

import pytest

HEAVY = (
    "httpx",
    "aiohttp",
    "celery",
    "kombu",
    "redis",
    "sqlalchemy",
    "numpy",
    "alembic",
    "rich.live",
    "genai_prices",
)

LOOK = "import sys; print('\\n'.join(name for name in {heavy!r} if name in sys.modules))"


def loaded_by(statement: str) -> list[str]:
    code = f"{statement}\n{LOOK.format(heavy=HEAVY)}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("statement", ["import producers", "import promptmill", "import producers.cli.app"])
def test_importing_loads_no_database_layer_and_no_client(statement: str) -> None:
    assert loaded_by(statement) == []


def test_importing_producers_takes_less_than_a_tenth_of_a_second_of_cpu() -> None:
    loaded_by("import producers")  # the first one also compiles it
    code = "import time; began = time.process_time(); import producers; print(time.process_time() - began)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert float(done.stdout) < 0.1


def test_every_public_name_is_there() -> None:
    code = "import producers; print([name for name in producers.__all__ if not hasattr(producers, name)])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_public_names_are_these() -> None:
    import producers  # noqa: PLC0415  # what it holds is the point

    assert producers.__all__ == [
        "AuditReport", "Batch", "BatchStatus", "Failures", "KeysNow", "LimitsNow", "Moment", "Result", "audit",
        "batch", "estimate", "forget_limits", "limits", "list_batches", "list_keys", "probe_limits", "purge",
        "results", "run", "submit", "wait", "watch_limits",
    ]  # fmt: skip
    with pytest.raises(AttributeError):
        producers.nothing  # noqa: B018  # asking for it is the test
