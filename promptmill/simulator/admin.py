"""/_admin: what a test or a person asks the simulator about itself. Not part of the real API.

GET  health      version, process id, CPU seconds, memory
GET  ledger      the book; `?detail=1` adds every prompt's count, every second, the latest calls and bills
GET  bills       what each call was billed, by the number at the end of its request id; `?after=N` leaves out the first N
POST reset       full buckets, an empty book
GET, POST limits the pools; a body {"rpm", "itpm", "otpm", "organization", "group"} changes limits
POST keys        {"add": {organization: [keys]}, "revoke": [keys]}: keys that come and go, until the next reset
POST scenario    another scenario, as the tables of its file in JSON; tenants and limits from the next reset on
"""

import json
import os
import resource
import sys
import time
from typing import Any

from promptmill import __version__
from promptmill.errors import InvalidInput
from promptmill.simulator.limits import Pool
from promptmill.simulator.problems import ApiProblem, invalid
from promptmill.simulator.simulation import Simulation

_LIMITS = ("rpm", "itpm", "otpm")
_BILLS_AT_ONCE = 50_000
_NAMES = ("requests", "input_tokens", "output_tokens")


def answer_admin(  # noqa: PLR0911  # one return per endpoint: it reads as the table above
    simulation: Simulation, method: str, name: str, raw: bytes, *, detail: bool, after: int = 0
) -> dict[str, Any]:
    """The JSON answer of one admin endpoint.

    Raises:
        ApiProblem: 404 for an unknown endpoint, 400 for a wrong body.
    """
    match method, name:
        case "GET", "health":
            return _health()
        case "GET", "ledger":
            return _ledger(simulation, detail=detail)
        case "GET", "bills":
            return _bills(simulation, after)
        case "POST", "reset":
            simulation.reset()
            return {"reset": True}
        case "GET", "limits":
            return {"pools": _pools(simulation)}
        case "POST", "limits":
            _set_limits(simulation, _read(raw))
            return {"pools": _pools(simulation)}
        case "POST", "keys":
            return _change_keys(simulation, _read(raw))
        case "POST", "scenario":
            return _play(simulation, _read(raw))
    raise ApiProblem(404, f"{method} /_admin/{name}: no such endpoint")


def _health() -> dict[str, Any]:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "status": "ok",
        "version": __version__,
        "pid": os.getpid(),
        "cpu_s": time.process_time(),
        "max_rss_bytes": memory if sys.platform == "darwin" else memory * 1024,
    }


def _ledger(simulation: Simulation, *, detail: bool) -> dict[str, Any]:
    book = simulation.ledger.to_json(simulation.clock.monotonic(), detail=detail)
    return {"simulator": __version__, "seed": simulation.config.seed, **book, "pools": _pools(simulation)}


def _bills(simulation: Simulation, after: int) -> dict[str, Any]:
    return {
        "since": simulation.ledger.since,
        "request_ids": simulation.request_ids,
        "first": simulation.first_number,
        "bills": simulation.ledger.bills(after, _BILLS_AT_ONCE),
    }


def _pools(simulation: Simulation) -> list[dict[str, Any]]:
    now = simulation.clock.monotonic()
    simulation.organizations.catch_up(now)
    return [
        {"organization": organization.name, "group": group, **_pool(pool, now)}
        for organization in simulation.organizations
        for group, pool in organization.pools.items()
    ]


def _pool(pool: Pool, now: float) -> dict[str, Any]:
    levels = pool.levels(now)
    buckets = (pool.requests, pool.input, pool.output)
    return {
        "limits": dict(zip(_NAMES, pool.ceilings.per_minute, strict=True)),
        "capacity": {name: b.capacity if b else None for name, b in zip(_NAMES, buckets, strict=True)},
        "levels": dict(zip(_NAMES, levels, strict=True)),
        "admitted": dict(zip(_NAMES, pool.admitted, strict=True)),
    }


def _set_limits(simulation: Simulation, body: dict[str, Any]) -> None:
    if strange := sorted(set(body) - {*_LIMITS, "organization", "group"}):
        raise invalid(f"{strange[0]}: Extra inputs are not permitted")
    values = {name: body[name] for name in _LIMITS if body.get(name) is not None}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise invalid(f"{name}: Input should be a number of at least 0")
    simulation.organizations.set_limits(
        values,
        simulation.clock.monotonic(),
        organization=body.get("organization"),
        group=body.get("group"),
    )


def _change_keys(simulation: Simulation, body: dict[str, Any]) -> dict[str, Any]:
    """Their number only: an answer that names keys ends up in a log."""
    added, revoked = body.get("add", {}), body.get("revoke", [])
    if set(body) - {"add", "revoke"} or not isinstance(added, dict) or not isinstance(revoked, list):
        raise invalid('Input should be {"add": {organization: [keys]}, "revoke": [keys]}')
    if any(not isinstance(keys, list) for keys in added.values()):
        raise invalid("add: Input should be lists of keys by organization")
    for organization, keys in added.items():
        for key in keys:
            simulation.organizations.add_key(str(key), organization)
    for key in revoked:
        simulation.organizations.revoke_key(str(key))
    return {"added": sum(len(keys) for keys in added.values()), "revoked": len(revoked)}


def _play(simulation: Simulation, tables: dict[str, Any]) -> dict[str, Any]:
    try:
        simulation.play(tables)
    except InvalidInput as error:
        raise invalid(str(error)) from None
    return {"faults": len(simulation.scenario.faults)}


def _read(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw or b"{}")
    except ValueError:
        raise invalid("The request body is not valid JSON") from None
    if not isinstance(body, dict):
        raise invalid("Input should be an object")
    return body
