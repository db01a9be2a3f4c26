"""What can be asked about the service: its models, and the limits of an organization (claude-api.md, 5.7 and 10)."""

from collections.abc import Mapping
from typing import Any

from promptmill.dimensions import Amounts
from promptmill.simulator.organizations import ADMIN_KEY, Organization
from promptmill.simulator.problems import ApiProblem, invalid
from promptmill.simulator.simulation import Simulation
from promptmill.simulator.validation import NEWEST_VERSION

_USUAL_PAGE = 20
_LARGEST_PAGE = 1000
_WORKSPACE = "wrkspc_"
_LIMITERS = (
    ("requests_per_minute", "requests"),
    ("input_tokens_per_minute_cache_aware", "input_tokens"),
    ("output_tokens_per_minute", "output_tokens"),
)


def list_models(simulation: Simulation, query: Mapping[str, str], lifecycles: list[str]) -> dict[str, Any]:
    """GET /v1/models: newest first, in pages.

    Args:
        simulation: whose menu and date count.
        query: `limit`, `after_id`, `before_id`.
        lifecycles: wanted stages; empty for active and deprecated.

    Raises:
        ApiProblem: 400, a parameter is wrong.
    """
    today = simulation.clock.now().date()
    wanted = set(lifecycles) or {"active", "deprecated"}
    rows = [info for each in simulation.menu.all() if (info := each.info(today))["lifecycle"] in wanted]
    limit = _read_limit(query.get("limit"), _USUAL_PAGE)
    page, has_more = _cut_page(rows, limit, query.get("after_id"), query.get("before_id"))
    return {
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": has_more,
    }


def show_model(simulation: Simulation, name: str) -> dict[str, Any]:
    """GET /v1/models/{id}.

    Raises:
        ApiProblem: 404, nothing is known of it.
    """
    model = simulation.menu.find(name)
    if model is None:
        raise ApiProblem(404, f"model: {name}")
    return model.info(simulation.clock.now().date())


def list_rate_limits(
    simulation: Simulation, organization: Organization, key: str, version: str, query: Mapping[str, str]
) -> dict[str, Any]:
    """GET /v1/organizations/rate_limits: the limits in force, per group; dimensions without one are left out.

    Raises:
        ApiProblem: 401 for an ordinary key, 400 or 404 for a parameter.
    """
    _check_admin(key)
    menu, today = simulation.menu, simulation.clock.now().date()
    groups = list(menu.groups(today))
    if (asked := query.get("model")) is not None:
        model = menu.find(asked)
        if model is None:
            raise ApiProblem(404, f"model: {asked}")
        groups = [model.facts.group]
    if query.get("group_type", "model_group") != "model_group":
        groups = []
    begin = _read_page(query.get("page"))
    limit = _read_limit(query.get("limit"), max(1, len(groups)))
    rows = [
        _rate_limit(
            organization,
            group,
            menu.in_group(group, today),
            version,
            simulation.organizations.limits_of(organization, group),
        )
        for group in groups[begin : begin + limit]
    ]
    more = begin + limit < len(groups)
    return {"data": rows, "next_page": f"page_{begin + limit}" if more else None}


def list_workspace_rate_limits(
    simulation: Simulation,
    organization: Organization,
    key: str,
    version: str,
    query: Mapping[str, str],
    *,
    workspace: str,
) -> dict[str, Any]:
    """GET /v1/organizations/workspaces/{id}/rate_limits: no workspace has limits of its own here.

    So the list is empty, or with `include_inherited` what the organization has, marked as inherited.

    Raises:
        ApiProblem: 401 for an ordinary key, 400 or 404 for a parameter.
    """
    _check_admin(key)
    if not workspace.startswith(_WORKSPACE):
        raise ApiProblem(404, f"workspace: {workspace}")
    if query.get("include_inherited", "false").lower() != "true":
        return {"data": [], "next_page": None}
    page = list_rate_limits(simulation, organization, key, version, query)
    return {**page, "data": [_inherited(entry, workspace) for entry in page["data"]]}


def _check_admin(key: str) -> None:
    if not key.startswith(ADMIN_KEY):
        raise ApiProblem(401, "This endpoint requires an admin API key.")


def _inherited(entry: dict[str, Any], workspace: str) -> dict[str, Any]:
    own = {name: value for name, value in entry.items() if name != "id"}
    source = {"type": "organization"}
    limits = [{**limit, "source": source, "org_limit": limit["value"]} for limit in entry["limits"]]
    return {
        **own,
        "type": "workspace_rate_limit",
        "workspace_id": workspace,
        "rate_limit_id": entry["id"],
        "limits": limits,
    }


def _rate_limit(
    organization: Organization, group: str, models: list[str], version: str, limits: Amounts
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": f"rl_{organization.id.split('-')[0]}_{group}",
        "type": "rate_limit",
        "models": models,
        "limits": [
            {"type": name, "value": round(getattr(limits, field))}
            for name, field in _LIMITERS
            if getattr(limits, field)
        ],
    }
    if version == NEWEST_VERSION:
        entry["group"] = {"id": f"rlg_{group}", "type": "model_group", "display_name": group}
    else:
        entry["group_type"] = "model_group"
    return entry


def _cut_page(
    rows: list[dict[str, Any]], limit: int, after: str | None, before: str | None
) -> tuple[list[dict[str, Any]], bool]:
    ids = [row["id"] for row in rows]
    for name, cursor in (("after_id", after), ("before_id", before)):
        if cursor is not None and cursor not in ids:
            raise invalid(f"{name}: no such model")
    if before is not None:
        end = ids.index(before)
        begin = max(0, end - limit)
        return rows[begin:end], begin > 0
    begin = ids.index(after) + 1 if after is not None else 0
    return rows[begin : begin + limit], begin + limit < len(rows)


def _read_limit(text: str | None, usual: int) -> int:
    if text is None:
        return usual
    if not text.isdigit() or not 1 <= int(text) <= _LARGEST_PAGE:
        raise invalid(f"limit: Input should be from 1 to {_LARGEST_PAGE}")
    return int(text)


def _read_page(text: str | None) -> int:
    if text is None:
        return 0
    number = text.removeprefix("page_")
    if not number.isdigit():
        raise invalid("page: no such page")
    return int(number)
