"""The table of bars, rehearsed by the product's limiter in virtual time: utilisation, refusals, ratio per row.

Utilisation and ratio are means over the seeds; refusals, the last admission and fairness hold for each.
Exits with 1 when a row is out.

    ./dev bench limiter_bars [--seeds 5] [--rows 1 4b 26] [--alone]
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from bench.rehearsal.bars import BARS, Bar, rehearse
from bench.rehearsal.figures import Outcome


def main() -> None:
    options = read_options()
    print(
        f"{'row':<6}{'what':<32}{'util':>7}{'429 mean/max':>14}{'ratio':>8}{'late s':>8}{'CPU s':>7}  bar (util/429/ratio)"
    )
    rows = chosen(options.rows)
    if options.alone:
        rows = [replace(bar, plan=replace(bar.plan, dispatched=False)) for bar in rows]
    out = [bar.number for bar in rows if not rehearse_row(bar, options.seeds)]
    if out:
        sys.exit(f"Out: {', '.join(out)}")
    print("All in.")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="rehearsals of each row")
    parser.add_argument("--rows", nargs="*", default=[], help="by number; 4b and 30 stand for four each")
    parser.add_argument(
        "--alone", action="store_true", help="without the dispatcher: all slots wait at the limiter"
    )
    return parser.parse_args()


def chosen(numbers: Sequence[str]) -> list[Bar]:
    rows = [bar for bar in BARS if not numbers or {bar.number, bar.number.partition("-")[0]} & set(numbers)]
    if not rows:
        sys.exit("There are these: " + " ".join(bar.number for bar in BARS))
    return rows


def rehearse_row(bar: Bar, seeds: int) -> bool:
    """Print one row; whether every seed clears its bar."""
    began = time.process_time()
    outcomes = [rehearse(bar.scene(seed)) for seed in range(1, seeds + 1)]
    misses = list(bar.misses(outcomes))
    if bar.same_as:
        even = replace(bar.plan, skew=0.0)
        misses += [
            f"seed {seed}: not the figures of row {bar.same_as}"
            for seed, each in enumerate(outcomes, 1)
            if each != rehearse(replace(even, seed=seed))
        ]
    print(figures(bar, outcomes, time.process_time() - began), "OUT" if misses else "in", flush=True)
    for miss in misses:
        print(f"      {miss}", flush=True)
    return not misses


def figures(bar: Bar, outcomes: Sequence[Outcome], cpu: float) -> str:
    count = len(outcomes)
    refusals = [each.refusals for each in outcomes]
    line = (
        f"{bar.number:<6}{bar.what:<32}"
        f"{sum(each.utilisation for each in outcomes) / count:7.3f}"
        f"{sum(refusals) / count:10.1f}{max(refusals):4d}"
        f"{sum(each.ratio for each in outcomes) / count:8.3f}"
        f"{max(each.late for each in outcomes):8.1f}{cpu:7.1f}"
        f"  {bar.util:g}/{bar.refusals}/{bar.ratio or '-'}"
    )
    fair = [each.fairness for each in outcomes if each.fairness]
    if fair:
        slowest = max(fair, key=lambda each: each.took / each.ideal)
        line += (
            f"  Jain {min(each.jain for each in fair):.3f}, small batch {slowest.took:.0f} s"
            f" (ideal {slowest.ideal:.0f}), share at once {min(each.early_share for each in fair):.2f}"
        )
    return line


if __name__ == "__main__":
    main()
