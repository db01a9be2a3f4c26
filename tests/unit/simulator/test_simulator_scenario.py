"""Scenario files: what is read, what is refused with its file and field, and which request a fault meets."""

from pathlib import Path

import pytest

from promptmill.errors import ConfigurationError, InvalidInput
from promptmill.simulator.config import SimulatorConfig
from promptmill.simulator.faults import Arrival, FaultPlan
from promptmill.simulator.scenario import Fault, apply_scenario, parse_scenario, read_scenario

EXAMPLES = sorted((Path(__file__).parents[3] / "examples" / "scenarios").glob("*.toml"))


def arrival(
    prompt: int = 1,
    *,
    at_s: float = 0.0,
    text: str = "",
    model: str = "claude-sonnet-5",
    streamed: bool = False,
    organization: str = "acme",
    billed_nanos: int = 0,
) -> Arrival:
    return Arrival(at_s, organization, billed_nanos, model, streamed, f"{prompt:016x}{0:016x}", text)


def plan(*faults: dict, seed: int = 0) -> FaultPlan:
    return FaultPlan(parse_scenario({"fault": list(faults)})[0].faults, seed)


def kinds(faults: FaultPlan, *arrivals: Arrival) -> list[str | None]:
    met = [faults.in_house(each) for each in arrivals]
    return [fault.kind if fault else None for fault in met]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_a_scenario(path: Path) -> None:
    config, scenario = apply_scenario(SimulatorConfig(scenario=str(path)))
    assert scenario.faults or scenario.tenants
    assert config.scenario == str(path)


def test_settings_of_a_scenario_fill_in_what_is_not_given(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text("[simulator]\nrpm = 50\nitpm = 1000\n[organizations]\nacme = ['k']\n", encoding="utf-8")
    config, _ = apply_scenario(SimulatorConfig(scenario=str(path), itpm=7))
    assert (config.rpm, config.itpm, config.organizations) == (50, 7, {"acme": ["k"]})


@pytest.mark.parametrize(
    ("text", "field", "why"),
    [
        ("[[fault]]\nkind = 'overlord'", "fault 1: kind", "must be one of rate_limited"),
        (
            "[[fault]]\nkind = 'cut'\n[[fault]]\nkind = 'cut'\nafte = 1",
            "fault 2: afte",
            "is not a field of cut",
        ),
        ("[[fault]]\nkind = 'cut'\nprobability = 2", "fault 1: probability", "from 0 to 1"),
        ("[[fault]]\nkind = 'cut'\nnth = 0", "fault 1: nth", "from 1 on"),
        ("[[fault]]\nkind = 'cut'\nmodel = 5", "fault 1: model", "wrong type"),
        ("[[fault]]\nkind = 'cut'\nhow = 'gently'", "fault 1: how", "must be one of clean, reset"),
        ("[[fault]]\nkind = 'server_error'\nstatus = 200", "fault 1: status", "HTTP error status"),
        ("[[fault]]\nkind = 'outage'\nnth = 3", "fault 1: nth", "is not a field of outage"),
        ("[fault]\nkind = 'cut'", "fault", r"must be written as \[\[fault\]\]"),
        ("[[tenant]]\nshare = 1.5", "tenant 1: share", "below 1"),
        ("[[limits]]\nrpm = 5", "limits 1: at_s", "is missing"),
        ("[simulator]\nrpms = 5", "simulator.rpms", "no setting 'rpms'"),
        ("[simulator]\nrpm = -5", "simulator.rpm", "at least 0"),
        ("[faults]", "faults", "is no table of a scenario"),
    ],
)
def test_a_fault_in_the_file_is_named_with_file_and_field(
    tmp_path: Path, text: str, field: str, why: str
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=why) as caught:
        apply_scenario(SimulatorConfig(scenario=str(path)))
    assert (caught.value.file, caught.value.field) == (str(path), field)


@pytest.mark.parametrize(("content", "why"), [(b"kind = ", "is not TOML"), (b"\xff", "is not UTF-8")])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=why):
        read_scenario(path)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        read_scenario("nowhere.toml")


def test_a_configuration_survives_json() -> None:
    config = SimulatorConfig(rpm=5, faults=[{"kind": "cut"}], organizations={"a": ["k"]})
    assert SimulatorConfig.from_json(config.to_json()) == config
    with pytest.raises(ConfigurationError, match="no setting 'speed'"):
        SimulatorConfig.from_json({"speed": 1})


def test_chance_depends_on_the_prompt_and_not_on_the_order() -> None:
    fault = {"kind": "overloaded", "probability": 0.3}
    forth, back = plan(fault), plan(fault)
    prompts = range(1_000)
    one = dict(zip(prompts, kinds(forth, *map(arrival, prompts)), strict=True))
    other = dict(zip(reversed(prompts), kinds(back, *map(arrival, reversed(prompts))), strict=True))
    assert one == other
    assert 250 < sum(kind is not None for kind in one.values()) < 350
    assert kinds(plan(fault, seed=1), *map(arrival, prompts)) != list(one.values())


def test_the_next_attempt_of_a_prompt_draws_again() -> None:
    faults = plan({"kind": "overloaded", "probability": 0.5})
    assert {kinds(faults, arrival(7))[0] for _ in range(30)} == {None, "overloaded"}


def test_nth_counts_the_requests_that_meet_the_other_conditions() -> None:
    faults = plan({"kind": "cut", "nth": [2, 3], "model": "claude-opus-*"})
    others = arrival(1), arrival(2, model="claude-opus-5")
    assert kinds(faults, *others, *others, *others, *others) == [
        None,
        None,
        None,
        "cut",
        None,
        "cut",
        None,
        None,
    ]


def test_every_and_times_bound_how_often() -> None:
    faults = plan({"kind": "reset", "every": 2, "times": 2})
    assert kinds(faults, *[arrival()] * 8) == [None, "reset", None, "reset", None, None, None, None]


def test_attempts_bound_how_often_one_prompt_is_met() -> None:
    faults = plan({"kind": "reset", "attempts": 1})
    assert kinds(faults, arrival(1), arrival(2), arrival(1), arrival(2)) == ["reset", "reset", None, None]


def test_a_span_of_time_begins_inclusive_and_ends_exclusive() -> None:
    faults = plan({"kind": "overloaded", "from_s": 10, "until_s": 20})
    times = [arrival(at_s=at_s) for at_s in (9.9, 10, 19.9, 20)]
    assert kinds(faults, *times) == [None, "overloaded", "overloaded", None]


def test_text_is_found_as_it_was_typed() -> None:
    faults = plan({"kind": "cut", "text": 'say "五"\n'})
    assert kinds(faults, arrival(text='{"content":"say \\"五\\"\\n now"}'), arrival(text="say")) == [
        "cut",
        None,
    ]


def test_faults_of_a_stream_meet_streams_only() -> None:
    faults = plan({"kind": "stream_error"})
    assert kinds(faults, arrival(), arrival(streamed=True)) == [None, "stream_error"]


def test_a_spend_cap_waits_until_so_much_was_billed() -> None:
    faults = plan({"kind": "spend_cap", "after_usd": 0.5, "organization": "acme"})
    rich = arrival(billed_nanos=500_000_000)
    assert kinds(faults, arrival(), rich, arrival(billed_nanos=10**9, organization="b")) == [
        None,
        "spend_cap",
        None,
    ]


def test_the_first_fault_that_applies_happens() -> None:
    faults = plan({"kind": "cut", "nth": 2}, {"kind": "overloaded"})
    assert kinds(faults, arrival(), arrival(), arrival()) == ["overloaded", "cut", "overloaded"]


def test_an_outage_is_met_at_the_door() -> None:
    faults = plan({"kind": "outage", "until_s": 5})
    assert faults.at_door(arrival(at_s=1)) == Fault(kind="outage", until_s=5)
    assert faults.at_door(arrival(at_s=5)) is None
    assert kinds(faults, arrival(at_s=1)) == [None]
