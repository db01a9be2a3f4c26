"""The answers of a million jobs written to a file: rows a second and peak memory, in every format.

    ./dev bench export [--jobs 1000000] [--databases sqlite postgres] [--formats jsonl anthropic csv parquet]

Runs `promptmill results` as a person types it. The baseline, in the same run, is the least that writes an answer a
line: one query over the same tables by the bare driver, the stored message parsed, and `json.dumps`. It adds up no
attempts, knows no failure and is not taken up where it broke off. Parquet needs pyarrow.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from million.ran import promptmill
from million.scenes import SCENES, fill

from promptmill.embedded import throwaway_postgres
from promptmill.store.database import Database

FORMATS = ("jsonl", "anthropic", "csv", "parquet")
NAME = "done"
QUERY = """
    SELECT job.custom_id, job.state, prompt.source, reply.text, reply.message FROM job
    JOIN prompt ON prompt.job_id = job.id LEFT JOIN reply ON reply.job_id = job.id ORDER BY job.batch_id, job.seq
"""


def main() -> None:
    options = read_options()
    for name in options.databases:
        with (
            tempfile.TemporaryDirectory(prefix="promptmill-bench-") as folder,
            throwaway_postgres() if name == "postgres" else nullcontext(f"sqlite:///{folder}/ours.db") as url,
        ):
            made_ready(url, options.jobs)
            print(f"{name}, {options.jobs:,} jobs")
            least = baseline(url, Path(folder, "baseline.jsonl"))
            print(f"  {'baseline':<10}{options.jobs / least:>10,.0f} rows/s of CPU", flush=True)
            for format_ in options.formats:
                print_figures(format_, url, folder, options.jobs, least)


def print_figures(format_: str, url: str, folder: str, jobs: int, least: float) -> None:
    """One export; rates are by CPU, so that others on the machine do not count."""
    if format_ == "parquet" and importlib.util.find_spec("pyarrow") is None:
        print("  parquet is left out: pyarrow is not installed")
        return
    out = Path(folder, f"out.{format_}")
    ran = promptmill("results", NAME, "-o", str(out), "--format", format_, folder=folder, database_url=url)
    print(
        f"  {format_:<10}{jobs / ran.cpu_s:>10,.0f} rows/s of CPU, {least / ran.cpu_s:.2f} of the baseline;"
        f" {ran.seconds:.1f} s, {1e6 * ran.cpu_s / jobs:.1f} us a row, peak {ran.peak_mb:.0f} MB,"
        f" {out.stat().st_size / 1e6:,.0f} MB written",
        flush=True,
    )
    out.unlink()


def made_ready(url: str, jobs: int) -> None:
    database = Database.open(url)
    database.migrate()
    fill(database, NAME, SCENES["ended"], jobs)
    database.close()


def baseline(url: str, out: Path) -> float:
    """Seconds of this process's CPU."""
    database = Database.open(url)
    began = time.process_time()
    with database.read() as conn, out.open("w", encoding="utf-8") as file:
        driver: Any = conn.connection.driver_connection
        cursor = driver.cursor("answers") if conn.dialect.name == "postgresql" else driver.cursor()
        for custom_id, state, source, text, message in cursor.execute(QUERY):
            line = {
                "custom_id": custom_id,
                "state": state,
                "text": text,
                "message": None if message is None else json.loads(message),
                "input": None if source is None else json.loads(source),
            }
            file.write(json.dumps(line) + "\n")
    seconds = time.process_time() - began
    database.close()
    out.unlink()
    return seconds


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument(
        "--databases", nargs="+", choices=("sqlite", "postgres"), default=["sqlite", "postgres"]
    )
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
