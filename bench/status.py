"""`status` of a batch of a million jobs in every situation, beside counting its rows with COUNT(*) … GROUP BY.

Ours is all that the command asks the database (its figures, what failed with a sample of each group, the prediction);
the baseline is what a reader without kept counters would ask: jobs by state, failed attempts by outcome, and answers
by stop reason. Both read the same rows in turn; the fastest of several looks counts. The rows are made inside the
database (`bench/million`).

    .venv/bin/python bench/status.py [--jobs 1000000] [--database sqlite postgres]
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from million.places import database_of
from million.scenes import SCENES, fill
from sqlalchemy import text

from producers.bottleneck import Bottleneck
from producers.watch import look
from promptmill.settings import Settings
from promptmill.store.database import Database

LOOKS = 5
COUNTS = (
    "SELECT state, count(*) FROM job WHERE batch_id = :id GROUP BY state",
    "SELECT outcome, count(*) FROM attempt WHERE batch_id = :id GROUP BY outcome",
    "SELECT stop_reason, count(*) FROM reply JOIN job ON id = job_id WHERE batch_id = :id GROUP BY stop_reason",
)


def main() -> None:
    options = read_options()
    for kind in options.database:
        with database_of(kind) as database, TemporaryDirectory() as folder:
            print(f"{kind}, {options.jobs:,} jobs a batch")
            print(f"  {'the batch':<12}{'status, ms':>12}{'counted, ms':>14}{'ratio':>8}")
            settings = Settings(home=Path(folder))
            for name in options.scene:
                batch_id = fill(database, name, SCENES[name], options.jobs)
                measure(database, name, batch_id, settings)


def measure(database: Database, name: str, batch_id: str, settings: Settings) -> None:
    with Bottleneck(settings) as bottleneck:
        ours = fastest(lambda: look(database, batch_id, bottleneck, settings))
    counted = fastest(lambda: count(database, batch_id))
    print(f"  {name:<12}{1000 * ours:>12.1f}{1000 * counted:>14.1f}{counted / ours:>8.0f}", flush=True)


def count(database: Database, batch_id: str) -> None:
    with database.read() as connection:
        for statement in COUNTS:
            connection.execute(text(statement), {"id": batch_id}).all()


def fastest(act: Callable[[], object]) -> float:
    seconds = []
    for _ in range(LOOKS):
        begun = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--database", nargs="+", choices=["sqlite", "postgres"], default=["sqlite"])
    parser.add_argument("--scene", nargs="+", choices=list(SCENES), default=list(SCENES))
    return parser.parse_args()


if __name__ == "__main__":
    main()
