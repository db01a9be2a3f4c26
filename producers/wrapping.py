"""Sentences in lines of a terminal.

The one idea: lines are broken between words, and a command stays whole, to be copied.
"""

import re
import shutil
import textwrap
from typing import TextIO

from producers.words import is_terminal

WIDTH = 80
"""Columns of a terminal, at which lists are wrapped."""
_NARROWEST = 40
_COMMAND = re.compile(r"(?<=: )(?:promptmill|export) [^;]+")
_GLUE = "\0"


def folded(text: str, *, indent: str = "  ", width: int = WIDTH) -> str:
    """A sentence in lines of a terminal; those after the first are indented."""
    glued = _COMMAND.sub(lambda command: command[0].replace(" ", _GLUE), text)
    lines = textwrap.wrap(
        glued, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).replace(_GLUE, " ")


def fitted(text: str, stream: TextIO | None) -> str:
    """What is to be said on a stream: folded where a terminal is too narrow for it, as it is for a file or a pipe."""
    if not is_terminal(stream):
        return text
    return fitted_to(shutil.get_terminal_size().columns, text)


def fitted_to(width: int, text: str) -> str:
    """The lines of a text, with those that are wider folded, under their own indent; a command alone in a line stays."""
    return "\n".join(_fitted_line(max(width, _NARROWEST), line) for line in text.split("\n"))


def _fitted_line(width: int, line: str) -> str:
    bare = line.lstrip(" ")
    if len(line) <= width or bare.startswith("promptmill "):
        return line
    return folded(line, indent=" " * (len(line) - len(bare)) + "  ", width=width)
