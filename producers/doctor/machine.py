"""This machine: may we write, is there room, are there enough file descriptors, is the disk one that SQLite can use."""

import os
import resource
import shutil
from pathlib import Path

from producers.doctor.checks import Check, note, ok, wrong
from promptmill.settings import Settings

FILES_BESIDE_CALLS = 256
"""File descriptors a worker needs beside one for each call: Redis, database, logs, Python itself."""
LITTLE_ROOM = 1_000_000_000
"""Bytes. A million jobs take 3.3 GB and their texts (docs/operations.md)."""
NO_ROOM = 100_000_000
NETWORK_DISKS = frozenset({"9p", "afs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs", "virtiofs"})  # fmt: skip
"""Where the locks of SQLite do not hold, or its shared memory does not exist (its own manual: "never on NFS")."""


def sqlite_file(settings: Settings) -> Path | None:
    """Where the database lies; None where it is a server's."""
    scheme, _, path = settings.effective_database_url.partition(":///")
    return Path(path) if scheme.startswith("sqlite") else None


def home(settings: Settings) -> list[Check]:
    """The data folder."""
    folder = settings.home.absolute()
    nearest = _existing(folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return [
            wrong(
                "data folder",
                f"{folder} cannot be written",
                "set PROMPTMILL_HOME to a folder you may write to",
            )
        ]
    found = str(folder) + ("" if folder.exists() else ", made at first use")
    return [ok("data folder", found), *room(settings)]


def room(settings: Settings) -> list[Check]:
    """The disk that holds the database, or else logs and the embedded Redis."""
    place = _existing((sqlite_file(settings) or settings.home).absolute())
    free = shutil.disk_usage(place).free
    return [judge_room(free, place), *judge_disk(disk_of(place, _mounts()), sqlite_file(settings))]


def judge_room(free: int, place: Path) -> Check:
    """`free` bytes at `place`."""
    found = f"{free / 1e9:.1f} GB free at {place}"
    if free >= LITTLE_ROOM:
        return ok("disk", found)
    advice = "make room, or move PROMPTMILL_HOME; a million jobs take about 3.3 GB"
    return wrong("disk", found, advice) if free < NO_ROOM else note("disk", found, advice)


def judge_disk(kind: str | None, database: Path | None) -> list[Check]:
    """`kind` is the file system's; only SQLite minds."""
    if database is None or kind not in NETWORK_DISKS:
        return []
    advice = "SQLite's locks do not hold there: move PROMPTMILL_HOME to a local disk, or use Postgres"
    return [wrong("disk of the database", f"{database} is on a network disk ({kind})", advice)]


def disk_of(place: Path, mounts: str) -> str | None:
    """The kind of file system that `place` is on, by the text of /proc/mounts; None where that does not say."""
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split(" ")
        root = Path(point.replace("\\040", " "))
        if (root == place or root in place.parents) and (found is None or len(root.parts) >= found[0]):
            found = len(root.parts), kind
    return found[1] if found else None


def file_descriptors(settings: Settings) -> list[Check]:
    """Workers raise the soft limit by themselves, as far as the hard one allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    calls = settings.worker.concurrency
    needed = calls + FILES_BESIDE_CALLS
    if hard == resource.RLIM_INFINITY or hard >= needed:
        return [ok("file descriptors", f"enough for {calls:,} calls in flight")]
    found = f"{hard:,} allowed, {needed:,} needed for {calls:,} calls in flight"
    fewer = max(1, hard - FILES_BESIDE_CALLS)
    return [
        wrong("file descriptors", found, f"ulimit -Hn {needed}, or lower PROMPTMILL_CONCURRENCY to {fewer}")
    ]


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _mounts() -> str:
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""
