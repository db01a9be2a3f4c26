"""Reading the settings: what each source says, the strongest last, and where each value came from.

The idea to keep in mind: everything is gathered by dotted path first and becomes one `Settings` in one step, so that
a fault can be told by the name and the source it came from.
"""

import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError

from promptmill.errors import ConfigurationError
from promptmill.secretfiles import full_address
from promptmill.settings.checks import checked
from promptmill.settings.faults import refusal
from promptmill.settings.values import Settings
from promptmill.settings.variables import ADMIN_KEY_PATHS, VARIABLES


def load(
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    with_admin_key: bool = False,
    **arguments: Any,
) -> Settings:
    """Read the settings of this process.

    Args:
        environ: the environment; the process's own when None.
        folder: where `.env` and `promptmill.toml` are looked for; the working directory when None.
        with_admin_key: read an admin key too. Without it none is known, wherever it stands: so no worker has it.
        **arguments: the strongest source, by dotted path with `__` for the dot (`limits__rpm=60`).

    Raises:
        ConfigurationError: one line that names the variable (or the file and entry) and what is wrong.
    """
    folder = folder or Path.cwd()
    toml = folder / "promptmill.toml"
    values, origins = _read_toml(toml)
    hidden = () if with_admin_key else ADMIN_KEY_PATHS
    _leave_out(values, origins, hidden)
    variables = {path: names for path, names in VARIABLES.items() if path not in hidden}
    _take_variables(values, origins, variables, _read_dotenv(folder / ".env"), ".env")
    _take_variables(values, origins, variables, os.environ if environ is None else environ, "environment")
    _take_arguments(values, origins, arguments)
    return checked(_with_full_addresses(_build(values, origins, toml)))


def _read_dotenv(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    return {name: value or "" for name, value in dotenv_values(file).items()}


def _take_variables(
    values: dict[str, Any],
    origins: dict[str, str],
    variables: Mapping[str, Sequence[str]],
    source: Mapping[str, str],
    label: str,
) -> None:
    for path, names in variables.items():
        name = next((name for name in names if source.get(name)), None)
        if name is not None:
            _put(values, path, source[name])
            origins[path] = f"{label} ({name})"


def _take_arguments(values: dict[str, Any], origins: dict[str, str], arguments: Mapping[str, Any]) -> None:
    for argument, value in arguments.items():
        if value is not None:
            path = argument.replace("__", ".")
            _put(values, path, value)
            origins[path] = "argument"


def _read_toml(file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    if not file.is_file():
        return {}, {}
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{file}: {error}", setting=str(file)) from error
    origins = {path: file.name for path in VARIABLES if _get(values, path) is not None}
    return values, origins


def _get(values: Mapping[str, Any], path: str) -> Any:
    for part in path.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return None
        values = values[part]
    return values


def _leave_out(values: dict[str, Any], origins: dict[str, str], paths: Iterable[str]) -> None:
    for path in paths:
        *groups, field = path.split(".")
        group = _get(values, ".".join(groups))
        if isinstance(group, dict):
            group.pop(field, None)
        origins.pop(path, None)


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *groups, field = path.split(".")
    for group in groups:
        inner = values.setdefault(group, {})
        if not isinstance(inner, dict):  # a fault of the file, which is told when all of it is looked at
            return
        values = inner
    values[field] = value


def _build(values: Mapping[str, Any], origins: Mapping[str, str], toml: Path) -> Settings:
    try:
        return Settings.model_validate({**values, "origins": origins})
    except ValidationError as error:
        refused = refusal(error, origins, toml)
    # Outside the handler: the caught error holds every value.
    raise refused


def _with_full_addresses(settings: Settings) -> Settings:
    values: dict[str, Any] = {"origins": dict(settings.origins)}
    for path in ("redis_url", "broker_url", "database_url"):
        server = path.removesuffix("_url")
        url_file = getattr(settings, f"{server}_url_file")
        values[path] = full_address(
            getattr(settings, path),
            url_file=url_file,
            password_file=getattr(settings, f"{server}_password_file"),
            setting=VARIABLES[path][0],
        )
        if values[path] is not None:
            values["origins"].setdefault(path, f"file ({url_file})")
    return settings.model_copy(update=values)
