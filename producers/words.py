"""Words for a person on a stream, which somebody may close before the work is done (`2>&1 | head -1`, a terminal shut).

The idea: then nobody listens any more, and the work goes on without a word.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO


def tell(stream: TextIO | None, text: str, *, end: str = "\n") -> None:
    """Write to a stream at once, if it is still there."""
    if stream is not None:  # as Python has it for one that was closed before it began
        lasting = Lasting(stream)
        lasting.write(text + end)
        lasting.flush()


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person sees it at once."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def silence(stream: TextIO) -> None:
    """Let what is written to it go nowhere: what Python holds back for a closed one would fail at its end."""
    with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


class Lasting:
    """A stream to which one can write even when it is closed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or let it go."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            silence(self._stream)
            return len(text)

    def flush(self) -> None:
        """Flush, or let it go."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            silence(self._stream)
