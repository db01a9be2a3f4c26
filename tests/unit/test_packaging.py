"""What is installed: the lock files, and the wheel with everything that is not Python."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PRODUCTION = ROOT / "requirements.lock"
DEVELOPMENT = ROOT / "requirements-dev.lock"
PACKAGES = ("promptmill", "producers", "workers")


def pins(lock: Path) -> dict[str, Version]:
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*])?==([^\s;\\]+)", lock.read_text(), re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in found}


def requirements(*extras: str) -> list[Requirement]:
    lines = [
        *PROJECT["dependencies"],
        *(line for extra in extras for line in PROJECT["optional-dependencies"][extra]),
    ]
    return [requirement for requirement in map(Requirement, lines) if requirement.name != PROJECT["name"]]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as users install it, made with the backend of the lock file and without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.parametrize("lock", [PRODUCTION, DEVELOPMENT], ids=["production", "development"])
def test_a_lock_file_names_no_address(lock: Path) -> None:
    assert "://" not in lock.read_text()


@pytest.mark.parametrize("lock", [PRODUCTION, DEVELOPMENT], ids=["production", "development"])
def test_every_package_in_a_lock_file_has_a_hash(lock: Path) -> None:
    entries = re.split(r"^(?=[a-z])", lock.read_text(), flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_lock_files_hold_what_the_project_asks_for() -> None:
    production, development = pins(PRODUCTION), pins(DEVELOPMENT)
    for locked, extras in ((production, ("postgres",)), (development, ("postgres", "dev"))):
        for requirement in requirements(*extras):
            version = locked.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement.name} is not locked: run ./dev lock"
            assert version in requirement.specifier, f"{requirement} is locked at {version}: run ./dev lock"


def test_development_uses_the_versions_of_production() -> None:
    development = pins(DEVELOPMENT)
    assert {name: development.get(name) for name in pins(PRODUCTION)} == pins(PRODUCTION)


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours | {"celeryconfig.py"} <= inside
    assert [name for name in inside if name.partition("/")[0] in ("tests", "bench", "docs", "examples")] == []


def test_the_wheel_works_without_the_source(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = "import celeryconfig, producers, promptmill, workers; print(promptmill.__file__, promptmill.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(tmp_path / "promptmill" / "__init__.py"), PROJECT["version"]]


def test_an_editable_install_copies_nothing(tmp_path: Path) -> None:
    """A copy in site-packages would hide what is edited here."""
    program = "import celeryconfig, workers; print(celeryconfig.__file__, workers.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(ROOT / "celeryconfig.py"), str(ROOT / "workers" / "__init__.py")]


def test_the_command_is_named_after_the_project(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "promptmill = producers.cli.app:main" in archive.read(entry_points).decode()
