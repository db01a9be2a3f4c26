"""What people and programs read about keys, from what several workers tell."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from producers.keys import KeyNow, KeysNow, merged
from producers.keys_shown import keys_document, keys_table

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def told(label: str, standing: str = "usable", **fields: Any) -> dict[str, Any]:
    return {
        "label": label, "account": "research", "kind": "file", "standing": standing, "why": None, "until": None,
        "refused_for": {}, "expires_at": None, "calls": 2, **fields,
    }  # fmt: skip


def test_what_several_workers_tell_is_one_line_and_what_they_do_not_have_stands_last() -> None:
    declared = [
        KeyNow(label="main", account="research", source="file"),
        KeyNow(label="new", account="research", source="command"),
    ]
    keys = merged(
        declared,
        {"a:1": [told("main")], "b:2": [told("main", "refused", why="401")], "c:3": []},
        {"research\tmain": NOW},
    )
    main, new = keys
    assert main.not_usable_at == {"b:2": "refused (401)", "c:3": "no such key there"}
    page = keys_table(KeysNow((main,), 3), NOW)
    assert "usable at 1 of 3" in page
    assert "main, at b:2: refused (401)" in page
    assert (main.state, main.why, main.calls, main.workers, main.usable_at) == ("usable", "401", 4, 2, 1)
    assert (main.used_at, new.state, new.workers) == (NOW, "unknown", 0)


def test_the_account_is_shown_as_a_person_wrote_it_also_while_a_simulator_answers() -> None:
    (key,) = merged([], {"a:1": [told("main", account="simulated/research")]}, {})
    assert (key.account, key.simulated) == ("research", True)


def test_the_page_fits_and_says_why() -> None:
    keys = merged(
        [],
        {
            "a:1": [
                told(
                    "main", "refused", why="401 authentication_error: invalid x-api-key " + "and so on " * 9
                ),
                told(
                    "vault",
                    expires_at=(NOW + timedelta(minutes=5)).isoformat(),
                    refused_for={"opus": "403 no"},
                ),
                told("capped", "resting", why="spend limit", until="2026-02-01T00:00:00+00:00"),
            ]
        },
        {"research\tvault": NOW - timedelta(seconds=3)},
    )
    page = keys_table(KeysNow(keys, 1), NOW)
    assert max(len(line) for line in page.splitlines()) <= 80
    assert "in 5 min 00 s  3.0 s ago" in page
    assert "capped: until 2026-02-01 00:00 UTC: spend limit" in page
    assert "vault, for opus: 403 no" in page


def test_without_a_worker_and_without_a_key_it_says_so() -> None:
    declared = (KeyNow(label="main", account="research", source="file"),)
    assert keys_table(KeysNow((), 0), NOW).startswith("no key is set")
    assert "no key is set" not in keys_table(KeysNow((), 0, fault="others may write keys.toml"), NOW)
    assert "no worker runs" in keys_table(KeysNow(declared, 0), NOW)
    silent = keys_table(KeysNow(declared, 0, "Redis does not answer (TimeoutError)"), NOW)
    assert silent.endswith("nobody knows whether they work: Redis does not answer (TimeoutError)")
    assert "no worker runs" not in silent
    assert "1 worker without: main" in keys_table(KeysNow(declared, 1), NOW)


def test_the_document_has_no_value_and_dates_of_one_form() -> None:
    (key,) = keys_document(KeysNow(merged([], {"a:1": [told("main")]}, {"research\tmain": NOW}), 1))["keys"]
    assert key["last_used_at"] == "2026-01-01T12:00:00Z"
    assert set(key) == {
        "label", "account", "source", "simulated", "state", "why", "refused_for", "until", "expires_at",
        "last_used_at", "calls_lately", "workers", "usable_at", "not_usable_at",
    }  # fmt: skip


def test_a_file_that_others_may_read_is_noted() -> None:
    page = keys_table(KeysNow((), 0, readable_by_others=(Path("/tmp/my keys.toml"),)), NOW)
    assert page.endswith("others on this machine may read /tmp/my keys.toml: chmod 600 '/tmp/my keys.toml'")
