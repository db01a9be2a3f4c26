"""`python -m promptmill.simulator`: a simulator in the foreground, or (`--child`) one that a parent controls."""

import argparse
import json
import sys

from promptmill.errors import PromptmillError
from promptmill.simulator.config import SimulatorConfig
from promptmill.simulator.server import run


def main() -> int:
    """Serve until stopped; 2 when the configuration, its scenario or its address is at fault."""
    options = _parser().parse_args()
    try:
        if options.child:
            run(SimulatorConfig.from_json(json.loads(sys.stdin.readline())), _announce, as_child=True)
        else:
            run(_config(options), lambda url: print(f"simulated Claude at {url}", file=sys.stderr))  # noqa: T201
    except PromptmillError as error:
        _complain(str(error), to_parent=options.child)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m promptmill.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8787, help="0 takes a free one")
    for name, unit in (("rpm", "requests"), ("itpm", "input tokens"), ("otpm", "output tokens")):
        parser.add_argument(f"--{name}", type=float, help=f"{unit} per minute, 0 = no limit")
    parser.add_argument(
        "--burst", type=float, default=60.0, help="what a bucket holds, in seconds of its limit"
    )
    parser.add_argument("--latency", type=float, default=600.0, help="mean milliseconds to the first token")
    parser.add_argument("--tokens-per-second", type=float, default=80.0, help="0 = all at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenario", help="a scenario file")
    parser.add_argument("--no-limits", action="store_true", help="no limit that is not given here")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


def _config(options: argparse.Namespace) -> SimulatorConfig:
    unset = 0.0 if options.no_limits else None
    return SimulatorConfig(
        host=options.host,
        port=options.port,
        rpm=unset if options.rpm is None else options.rpm,
        itpm=unset if options.itpm is None else options.itpm,
        otpm=unset if options.otpm is None else options.otpm,
        burst_s=options.burst,
        first_token_s=options.latency / 1000,
        tokens_per_s=options.tokens_per_second,
        seed=options.seed,
        scenario=options.scenario,
    )


def _announce(url: str) -> None:
    print(json.dumps({"url": url}), flush=True)  # noqa: T201  the parent reads it


def _complain(message: str, *, to_parent: bool) -> None:
    if to_parent:
        print(json.dumps({"error": message}), flush=True)  # noqa: T201  the parent reads it
    else:
        print(message, file=sys.stderr)  # noqa: T201  a person reads it


if __name__ == "__main__":
    sys.exit(main())
