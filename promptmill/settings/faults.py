"""A setting that cannot be, in the words of who wrote it: the name as it stands there, the value, what was meant.

The idea to keep in mind: a value is repeated only where a number or a word of a list was expected, so never one that may
be a secret or an address with a password.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import ValidationError

from promptmill.errors import ConfigurationError
from promptmill.settings.values import Settings
from promptmill.settings.variables import VARIABLES

ALIKE: Final = 0.6
_CUT_AT_COMMA: Final = frozenset({"float_parsing", "int_parsing", "bool_parsing", "int_from_float"})
_QUOTED: Final = _CUT_AT_COMMA | {
    "literal_error", "greater_than", "greater_than_equal", "less_than", "less_than_equal",
}  # fmt: skip
_TABLE_WANTED: Final = frozenset({"model_type", "mapping_type", "dict_type"})
_LONGEST: Final = 60


def refusal(error: ValidationError, origins: Mapping[str, str], toml: Path) -> ConfigurationError:
    """The first fault, named as its source names it: a variable, an argument, or an entry of the file and its line."""
    fault = error.errors(include_url=False)[0]
    parts = [str(part) for part in fault["loc"]]
    path = ".".join(parts)
    origin = origins.get(path, toml.name)
    setting = VARIABLES.get(path, (path,))[0]
    if origin == "argument":
        return ConfigurationError(f"{'__'.join(parts)}: {_what_is_wrong(fault)}", setting=setting)
    if variable := origin.partition("(")[2].rstrip(")"):
        return ConfigurationError(f"{variable}: {_what_is_wrong(fault)}", setting=setting)
    place, entry = _place(toml, parts[-1]), _entry(parts)
    if fault["type"] == "extra_forbidden":
        return ConfigurationError(f"{place}: {entry} is no setting{_meant(parts)}", setting=setting)
    return ConfigurationError(f"{place}: {entry}: {_what_is_wrong(fault)}", setting=setting)


def _what_is_wrong(fault: Mapping[str, Any]) -> str:
    kind, said = fault["type"], str(fault["msg"])
    if kind in _TABLE_WANTED:
        return f"this is a table, [{'.'.join(map(str, fault['loc']))}]"
    if kind in _CUT_AT_COMMA:
        said = said.partition(",")[0]
    found = fault["input"]
    not_this = (
        f", not {found!r:.{_LONGEST}}" if kind in _QUOTED and isinstance(found, str | int | float) else ""
    )
    return said[:1].lower() + said[1:] + not_this


def _meant(parts: Sequence[str]) -> str:
    *groups, field = parts
    beside = difflib.get_close_matches(field, _fields_of(groups), n=1, cutoff=ALIKE)
    elsewhere = [path for path in VARIABLES if path.rpartition(".")[2] == field]
    meant = [_entry([*groups, *beside])] if beside else elsewhere
    return f"; did you mean {meant[0]}?" if len(meant) == 1 else ""


def _fields_of(groups: Sequence[str]) -> list[str]:
    found: Any = Settings
    for name in groups:
        is_by_name = get_origin(found) is Mapping
        found = get_args(found)[1] if is_by_name else found.model_fields[name].annotation
    return [name for name in found.model_fields if name != "origins"]


def _entry(parts: Sequence[str]) -> str:
    return ".".join(f'"{part}"' if "." in part else part for part in parts)


def _place(toml: Path, field: str) -> str:
    """The file, and the line where just one speaks of the field."""
    named = re.compile(rf"""(?:^|[\s.\["'{{,]){re.escape(field)}["']?\s*[=.\]]""")
    lines = toml.read_text(encoding="utf-8").splitlines() if toml.is_file() else []
    found = [number for number, line in enumerate(lines, 1) if named.search(line.partition("#")[0])]
    return f"{toml.name}, line {found[0]}" if len(found) == 1 else toml.name
