"""A program: `production_imports.py LOCK` imports every module of ours and hides what LOCK does not name."""

import importlib
import importlib.abc
import importlib.machinery
import re
import sys
from collections.abc import Sequence
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

from packaging.utils import canonicalize_name

OURS = ("promptmill", "producers", "workers")
CHOSEN_BY_NAME = ("kombu.transport.redis", "redbeat", "flower.command", "psycopg")
LEFT_OUT = ("promptmill.testing", "promptmill.store.migrations")  # for tests alone; run by alembic alone
ROOT = Path(__file__).resolve().parents[2]


class OnlyNamed(importlib.abc.MetaPathFinder):
    """Finds nothing of a distribution that the lock does not name, so that an import of it fails."""

    def __init__(self, lock: Path) -> None:
        named = {
            canonicalize_name(name) for name in re.findall(r"^([\w.-]+)", lock.read_text(), re.MULTILINE)
        }
        named.add(canonicalize_name("promptmill"))
        brought = packages_distributions().items()
        self._hidden = {top for top, by in brought if not named & set(map(canonicalize_name, by))}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] in self._hidden:
            raise ModuleNotFoundError(f"No module named {fullname!r} in production", name=fullname)
        return None


def ours() -> list[str]:
    """The names of all our modules that production may import."""
    found = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for name in OURS
        for file in (ROOT / name).rglob("*.py")
    ]
    return sorted(name for name in found if not name.startswith(LEFT_OUT) and not name.endswith("__main__"))


def main(lock: str) -> None:
    """Import all, and print how many they were."""
    for name in [name for name in sys.modules if name.startswith("packaging")]:
        del sys.modules[name]  # this program needs it itself
    sys.meta_path.insert(0, OnlyNamed(Path(lock)))
    names = [*CHOSEN_BY_NAME, *ours()]
    for name in names:
        importlib.import_module(name)
    sys.stdout.write(f"{len(names)}\n")


if __name__ == "__main__":
    main(sys.argv[1])
