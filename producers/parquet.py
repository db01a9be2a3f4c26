"""Results as a Parquet file, written in groups of rows, so that memory does not grow with the batch."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from producers import formats
from promptmill.errors import ConfigurationError

_ROWS_PER_GROUP = 5_000
_COUNTS = frozenset({*formats.USAGE_COLUMNS, "attempts"})


def write(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write flat rows under `formats.COLUMNS`; money stays text, so that it stays exact.

    Raises:
        ConfigurationError: pyarrow is not installed.
    """
    pyarrow, parquet = _import("pyarrow"), _import("pyarrow.parquet")
    schema = pyarrow.schema([(name, _type_of(name, pyarrow)) for name in formats.COLUMNS])
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(rows):
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    source = iter(rows)
    while group := list(islice(source, _ROWS_PER_GROUP)):
        yield group


def _type_of(name: str, pyarrow: Any) -> Any:
    if name in _COUNTS:
        return pyarrow.int64()
    return pyarrow.bool_() if name == "simulated" else pyarrow.string()


def _import(name: str) -> Any:
    """The module, untyped: pyarrow is an extra that may be missing when types are checked."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigurationError("parquet needs pyarrow: pip install 'promptmill[parquet]'") from error
