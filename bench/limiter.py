"""The limiter in real time, through the whole product: every row of the table of bars that needs no week.

Real worker processes, a real Redis, a database, and a simulated Claude over HTTP, all on this machine. One line
a row: what was reached, and whether that is within its bar. A run waits for its limit nearly all of the time,
so several go on at once. Exit code 1 when a row is out.

    ./dev bench limiter                          # runs of about 100 s, three at a time: half an hour
    ./dev bench limiter --rows 1-4w 16 429       # these rows (a prefix will do: 1, 4b, 27)
    ./dev bench limiter --full                   # ten minutes a run, against the ratios of the table
    ./dev bench limiter --list
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from multiprocessing.synchronize import Lock
from pathlib import Path
from typing import Any

# The surroundings must not configure a run, nor must what is being submitted in this process.
for _name in [name for name in os.environ if name.startswith(("PROMPTMILL_", "ANTHROPIC_"))]:
    del os.environ[_name]

from realtime.figures import LONG_RUN_S, Figures, failings, measure  # noqa: E402  # after the cleaning
from realtime.rows import Row, all_rows  # noqa: E402
from realtime.servers import take_turns_with  # noqa: E402
from realtime.stage import play  # noqa: E402

HEAD = (
    f"{'row':<7}{'':<36}{'procs':>6}{'jobs':>6}{'429':>5}{'util':>7}{'by rate':>9}{'last adm.':>10}"
    f"{'ratio':>7}{'Redis':>7}{'once':>6}{'cost':>6}"
)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    options = read_options()
    rows = chosen(all_rows(), options.rows)
    if options.list:
        print("\n".join(f"{row.name:<7}{row.what}" for row in rows))
        return 0
    seconds = LONG_RUN_S if options.full else options.seconds
    print(f"{seconds:g} s by rate alone, {options.at_once} rows at a time\n{HEAD}", flush=True)
    # A process a row: alembic, which makes the tables, is not made for threads.
    context = multiprocessing.get_context("spawn")
    results = []
    with context.Pool(
        options.at_once, initializer=_begin, initargs=(context.Lock(),), maxtasksperchild=1
    ) as pool:
        for text, result in pool.imap_unordered(partial(run, seconds=seconds, options=options), rows):
            print(text, flush=True)
            results.append(result)
        pool.close()
        pool.join()
    out = sum(not result["within"] for result in results)
    print(f"\n{len(results) - out} rows within their bars, {out} out")
    if options.json:
        options.json.write_text(json.dumps({"seconds": seconds, "rows": results}, indent=1))
    return 1 if out else 0


def run(row: Row, seconds: float, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Play and judge one row: its line and all of its figures."""
    try:
        seconds = max(seconds, row.least_s)
        played = play(row, seconds, seed=options.seed, keep=options.keep)
        figures = measure(played)
    except Exception as error:  # noqa: BLE001  # one broken row must not cost the others
        traceback.print_exception(error, file=sys.stderr)
        text = f"{row.name:<7}{row.what:<36}  OUT: {type(error).__name__}: {error}"
        return text, {"row": row.name, "within": False, "failings": [repr(error)]}
    found = failings(row, figures, seconds)
    return line(row, figures, found), {
        "row": row.name,
        "what": row.what,
        "within": not found,
        "failings": found,
        "bar": asdict(row.bar),
        "figures": {**asdict(figures), "ratio": figures.ratio, "late_s": figures.late_s},
    }


def line(row: Row, figures: Figures, found: Sequence[str]) -> str:
    """One row of the table."""
    verdict = "in" if not found else "OUT: " + "; ".join(found)
    notes = [verdict, *special_figures(figures)]
    return (
        f"{row.name:<7}{row.what:<36}{row.workers:>6}{figures.jobs:>6}{figures.refused:>5}"
        f"{figures.utilisation:>7.3f}{figures.by_rate_s:>8.1f}s{figures.late_s:>+9.1f}s{figures.ratio:>7.3f}"
        f"{figures.redis_us:>5.0f}us"
        f"{_yes(figures.once):>6}{_yes(figures.cost_equal):>6}  {'  '.join(notes)}"
    )


def special_figures(figures: Figures) -> list[str]:
    """What only some rows have."""
    notes = []
    if figures.overloaded:
        notes.append(f"529: {figures.overloaded}")
    if figures.early is not None:
        notes.append(f"within retry-after: {figures.early[0]} on the wire, {figures.early[1]} sent")
    if figures.jain is not None and figures.newcomer is not None:
        notes.append(f"Jain {figures.jain:.3f}, newcomer {figures.newcomer:.2f} of its fair time")
    notes += [f"{name} {value:.2f}/job" for name, value in figures.commands.items()]
    return notes


def chosen(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """The rows of those names; a name without its workers or kind takes all of them."""
    if not names:
        return list(rows)
    found = [
        row for row in rows if any(row.name == name or row.name.startswith(f"{name}-") for name in names)
    ]
    if not found:
        sys.exit("There are these rows: " + ", ".join(row.name for row in rows))
    return found


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="only these; all by default")
    parser.add_argument("--seconds", type=float, default=100.0, help="of work by rate alone in a row")
    parser.add_argument("--full", action="store_true", help="ten minutes a row, and the table's ratios")
    parser.add_argument("--at-once", type=int, default=3, help="rows that run at the same time")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep the server's book and the logs there"
    )
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    return parser.parse_args()


def _begin(turn: Lock) -> None:
    """In the process of a row: a signal to end leads through the `with` blocks that end what it has started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    take_turns_with(turn)


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "NO"


if __name__ == "__main__":
    raise SystemExit(main())
