"""`promptmill purge` and `encrypt`, as a person types them."""

import json
from typing import Any

import pytest

from promptmill.encryption import id_of

pytestmark = pytest.mark.timeout(120)

PROMPT = "words that shall go"


@pytest.fixture
def canceled(cli: Any) -> Any:
    """A folder with one batch that has ended, without a worker."""
    rows = [{"prompt": f"{PROMPT} {number}"} for number in range(3)]
    assert (
        cli(
            "submit", cli.file("rows.jsonl", *rows), "--model", "claude-haiku-5-5", "--name", "old"
        ).returncode
        == 0
    )
    assert cli("cancel", "old").returncode == 0
    return cli


def files_with(cli: Any, words: str) -> list[str]:
    held = (each for each in (cli.folder / ".promptmill").rglob("*") if each.is_file())
    return [each.name for each in held if words.encode() in each.read_bytes()]


def test_a_batch_is_purged_only_when_somebody_agrees(canceled: Any) -> None:
    would = canceled("purge", "old", "--dry-run")
    assert would.stderr == "old: prompts and answers of 3 jobs would go\n"
    refused = canceled("purge", "old")
    assert (refused.returncode, "say --yes" in refused.stderr) == (1, True)
    assert files_with(canceled, PROMPT) != []
    done = canceled("purge", "--older-than", "0s", "--yes")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "purged 1 batch with 3 jobs")
    assert files_with(canceled, PROMPT) == []
    assert canceled.json("status", "old")["purged_at"] is not None
    assert "were purged on" in canceled("results", "old").stderr
    assert "were purged on" in canceled("retry", "old", "--only", "canceled").stderr
    assert (
        "were purged on"
        in canceled("submit", "rows.jsonl", "--model", "claude-haiku-5-5", "--name", "old").stderr
    )
    assert canceled.json("purge", "old", "--yes") == {"dry_run": False, "purged": []}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "name a batch, or say --older-than"),
        (("old", "--older-than", "1d"), "name a batch or say --older-than, not both"),
        (("old", "--what", "lies"), "lies is none of prompts, answers, everything"),
        (("--older-than", "soon"), "'soon' is no duration such as"),
    ],
)
def test_wrong_words_are_told_in_a_sentence(cli: Any, words: tuple[str, ...], why: str) -> None:
    wrong = cli("purge", *words)
    assert (wrong.returncode, why in wrong.stderr) == (2, True)


def test_what_was_stored_is_encrypted_on_demand_and_unreadable_without_the_key(canceled: Any) -> None:
    assert "is not set: name a file of keys" in canceled("encrypt").stderr
    (canceled.folder / "keys").write_text(canceled("encrypt", "--new-key").stdout)
    key = {"PROMPTMILL_ENCRYPTION_KEYS_FILE": "keys"}
    assert canceled("encrypt", **key).stderr == "4 rows are under the first key now\n"
    assert files_with(canceled, PROMPT) == []
    without = canceled("status", "old")
    assert (without.returncode, "are encrypted and no key is given" in without.stderr) == (1, True)
    assert PROMPT in canceled("results", "old", **key).stdout
    assert canceled("encrypt", "--decrypt", **key).stderr == "4 rows are readable again\n"
    assert PROMPT in canceled("results", "old").stdout


def test_keys_and_their_ids_are_documents_too_and_one_thing_is_done_at_a_time(cli: Any) -> None:
    key = cli.json("encrypt", "--new-key")["new_key"]
    (cli.folder / "keys").write_text(key)

    shown = cli("encrypt", "--key-ids", "--json", PROMPTMILL_ENCRYPTION_KEYS_FILE="keys")
    both = cli("encrypt", "--new-key", "--decrypt")

    assert len(json.loads(shown.stdout)["key_ids"]) == 1
    assert (both.returncode, both.stdout) == (2, "")
    assert "take one of --new-key, --decrypt and --key-ids" in both.stderr


def test_where_nothing_is_stored_nothing_is_encrypted_and_no_folder_made(cli: Any) -> None:
    (cli.folder / "keys").write_text(cli("encrypt", "--new-key").stdout)

    done = cli("encrypt", PROMPTMILL_ENCRYPTION_KEYS_FILE="keys")

    assert (done.returncode, done.stderr) == (
        0,
        f"nothing to do: nothing is stored in {cli.folder / '.promptmill'}\n",
    )
    assert not (cli.folder / ".promptmill").exists()


def test_what_no_key_opens_is_counted_and_all_else_encrypted(canceled: Any) -> None:
    first, second, third = (canceled("encrypt", "--new-key").stdout for _ in range(3))

    def with_keys(*keys: str) -> dict[str, str]:
        (canceled.folder / "keys").write_text("".join(keys))
        return {"PROMPTMILL_ENCRYPTION_KEYS_FILE": "keys"}

    canceled("encrypt", **with_keys(first))
    more = canceled.file("more.jsonl", {"prompt": "more"})
    canceled("submit", more, "--model", "claude-haiku-5-5", "--name", "new", **with_keys(second, first))
    done = canceled("encrypt", **with_keys(third, second))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-3:] == [
        "2 rows are under the first key now",
        "no key opens 4 rows, which stay as they are: old (4)",
        "put their key into the file too; if it is lost: promptmill purge BATCH --what everything",
    ]
    again = canceled("encrypt", "--json", **with_keys(third))
    assert (again.returncode, json.loads(again.stdout)["unopened"]) == (1, {"old": 4})
    ids = canceled("encrypt", "--key-ids", **with_keys(third, first)).stdout.split()
    assert ids == [id_of(each.strip()) for each in (third, first)]
    assert canceled("encrypt", **with_keys(third, first)).returncode == 0


def test_an_address_of_a_webhook_that_leads_inside_is_refused(cli: Any) -> None:
    refused = cli(
        "submit",
        cli.file("rows.jsonl", {"prompt": "1"}),
        "--model",
        "claude-haiku-5-5",
        "--notify",
        "https://10.0.0.1/token",
    )
    assert refused.returncode == 2
    assert "may not be 10.0.0.1: it is not on the public internet" in refused.stderr
    assert "token" not in refused.stderr
