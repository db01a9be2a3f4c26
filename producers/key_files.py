"""Who else may read a file of keys. The idea: it is told to people, and nothing is refused for it."""

import stat
from pathlib import Path


def is_open_to_others(file: Path) -> bool:
    """Whether others on this machine may read it. A container's secret is read-only and inside it alone."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return bool(mode & (stat.S_IRGRP | stat.S_IROTH)) and not file.is_relative_to("/run/secrets")
