"""Data frames and Parquet: rows as dicts, without importing the caller's library.

Arrow's PyCapsule interface serves every frame library when pyarrow is there; without it pandas and polars are
asked in their own words.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from promptmill.errors import ConfigurationError, InvalidInput

_ROWS_AT_ONCE = 2_000


def is_frame(source: object) -> bool:
    """True for what holds rows of columns rather than being an iterable of rows."""
    return any(hasattr(source, name) for name in ("__arrow_c_stream__", "collect_schema", "iloc"))


def frame_rows(source: Any) -> Iterator[dict[str, Any]]:
    """The rows of a pandas, polars, pyarrow or duckdb object; missing values are None.

    Raises:
        ConfigurationError: it can only be read through pyarrow, which is not installed.
    """
    if hasattr(source, "collect"):  # a lazy frame of polars has no stream
        source = source.collect()
    pyarrow = _pyarrow()
    if pyarrow is not None and hasattr(source, "__arrow_c_stream__"):
        for batch in pyarrow.RecordBatchReader.from_stream(source):
            yield from batch.to_pylist()
    elif hasattr(source, "collect_schema"):  # polars
        yield from source.iter_rows(named=True)
    elif hasattr(source, "iloc"):
        for start in range(0, len(source), _ROWS_AT_ONCE):
            for row in source.iloc[start : start + _ROWS_AT_ONCE].to_dict("records"):
                yield {name: None if value != value else value for name, value in row.items()}  # noqa: PLR0124  # NaN
    else:
        raise _needs_pyarrow(f"a {type(source).__name__}")


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, a few thousand in memory at a time.

    Raises:
        ConfigurationError: pyarrow is not installed.
        InvalidInput: the file is not Parquet.
    """
    pyarrow = _pyarrow()
    if pyarrow is None:
        raise _needs_pyarrow("a Parquet file")
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidInput(f"not a readable Parquet file: {error}", file=path) from None


def _pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        return None


def _needs_pyarrow(what: str) -> ConfigurationError:
    return ConfigurationError(f"reading {what} needs pyarrow: pip install 'promptmill[parquet]'")
