"""`promptmill simulate`."""

from pathlib import Path
from typing import Annotated

import typer

from producers.cli.printing import log_as_a_server, say_serving


def simulate(
    *,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8787,
    host: Annotated[str, typer.Option("--host", help="The address to listen at.")] = "127.0.0.1",
    rpm: Annotated[
        float | None, typer.Option("--rpm", min=0, help="Requests per minute; 0 is no limit.")
    ] = None,
    itpm: Annotated[
        float | None, typer.Option("--itpm", min=0, help="Input tokens per minute; 0 is no limit.")
    ] = None,
    otpm: Annotated[
        float | None, typer.Option("--otpm", min=0, help="Output tokens per minute; 0 is no limit.")
    ] = None,
    burst: Annotated[
        float, typer.Option("--burst", min=0, help="What a bucket holds, in seconds of its limit.")
    ] = 60.0,
    latency: Annotated[
        float, typer.Option("--latency", min=0, help="Mean milliseconds until the first token.")
    ] = 600.0,
    speed: Annotated[
        float, typer.Option("--tokens-per-second", min=0, help="Mean speed of an answer; 0 is all at once.")
    ] = 80.0,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same answers and faults.")] = 0,
    scenario: Annotated[
        Path | None, typer.Option("--scenario", metavar="FILE", help="A script of faults (TOML).")
    ] = None,
    no_limits: Annotated[
        bool, typer.Option("--no-limits", help="No limit in a dimension that is not given here.")
    ] = False,
) -> None:
    """Run a simulated Claude that enforces limits as the real one does. Nothing is paid.

    Without a limit it has those of the published Start tier. Point Promptmill at it with ANTHROPIC_BASE_URL.
    """
    from promptmill import settings  # noqa: PLC0415  # 0.3 s that --help does not need
    from promptmill.simulator.config import SimulatorConfig  # noqa: PLC0415  # likewise
    from promptmill.simulator.server import run  # noqa: PLC0415  # likewise

    found = settings.load()
    log_as_a_server(found)
    unset = 0.0 if no_limits else None
    limits = {
        name: unset if limit is None else limit
        for name, limit in {"rpm": rpm, "itpm": itpm, "otpm": otpm}.items()
    }
    config = SimulatorConfig(
        host=host,
        port=port,
        rpm=limits["rpm"],
        itpm=limits["itpm"],
        otpm=limits["otpm"],
        burst_s=burst,
        first_token_s=latency / 1000,
        tokens_per_s=speed,
        seed=seed,
        scenario=str(scenario) if scenario else None,
    )
    run(config, on_ready=lambda url: say_serving(found, start_line(url, **limits), url))


def start_line(url: str, **limits: float | None) -> str:
    """Where it is, and what to set to try it; of `limits` (rpm, itpm, otpm) 0 is one that no answer ever states."""
    unstated = [f"PROMPTMILL_{name.upper()}=0" for name, limit in limits.items() if limit == 0]
    warning = (
        " (where it has no limit, workers keep their default one unless you set 0 too)" if unstated else ""
    )
    return " ".join(
        [f"simulated Claude at {url}; try it{warning} with: export ANTHROPIC_BASE_URL={url}", *unstated]
    )
