"""The shape of the code, held by tests: who may import whom, where Lua lives, what every module begins with."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("promptmill", "producers", "workers")
MODULES = sorted(
    [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")] + [ROOT / "celeryconfig.py"]
)
LUA_CALL = re.compile(r"redis\.p?call\s*\(")

# What importing a package may not load: each costs a second or a network client.
HEAVY = ("aiohttp", "anthropic", "celery", "httpx", "numpy", "pyarrow", "sqlalchemy")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_imports_keep_to_the_contracts_in_pyproject(run: Callable[..., str]) -> None:
    run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")


def test_every_module_says_what_it_is_for() -> None:
    silent = [name_of(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_lua_lives_beside_the_limiter_only() -> None:
    limits = ROOT / "promptmill" / "limits"
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.lua")]
    inline = [path for path in MODULES if LUA_CALL.search(path.read_text())]
    assert [name_of(path) for path in [*files, *inline] if limits not in path.parents] == []


def test_every_package_says_that_it_is_typed() -> None:
    assert all((ROOT / package / "py.typed").exists() for package in PACKAGES)


@pytest.mark.parametrize("package", ["promptmill", "producers", "promptmill.embedded"])
def test_importing_a_package_loads_nothing_heavy(package: str, run: Callable[..., str]) -> None:
    loaded = run(sys.executable, "-c", f"import {package}, sys; print(*sys.modules)").split()
    assert sorted(set(HEAVY) & set(loaded)) == []


def test_the_embedded_servers_need_the_standard_library_only(run: Callable[..., str]) -> None:
    program = "import promptmill.embedded, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    source = f"import sys; sys.path.append({str(ROOT)!r}); {program}"
    loaded = set(run(sys.executable, "-I", "-S", "-c", source).split()) - {"__main__"}
    assert loaded - set(sys.stdlib_module_names) == {"promptmill"}


@pytest.fixture
def run() -> Callable[..., str]:
    """Runs a command in the project's folder; gives what it printed, fails with it when the command fails."""

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
