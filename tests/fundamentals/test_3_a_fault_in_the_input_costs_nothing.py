"""Promise 3: a fault in the input is found before anything is asked, and every fault is named."""

import pytest

from producers import list_batches, submit, wait
from promptmill.errors import InvalidInput
from promptmill.intake.faults import InvalidRows
from promptmill.simulator.process import SimulatorHandle

ROWS = [
    {"prompt": "fine"},
    {"question": "no prompt"},
    {"prompt": ""},
    {"prompt": "fine", "custom_id": "not so fine!"},
]


def test_one_bad_row_keeps_all_from_being_submitted(claude: SimulatorHandle) -> None:
    before = len(list_batches(1000))

    with pytest.raises(InvalidRows) as refused:
        submit(ROWS, model="claude-haiku-5-5")

    assert [(fault.line, fault.field) for fault in refused.value.faults] == [
        (2, "prompt"),
        (3, "prompt"),
        (4, "custom_id"),
    ]
    assert len(list_batches(1000)) == before
    assert claude.ledger()["requests"] == 0


def test_they_can_be_left_out_instead(claude: SimulatorHandle) -> None:
    with pytest.warns(UserWarning, match="left out"):
        batch = submit(ROWS, model="claude-haiku-5-5", skip_invalid=True)

    assert wait(batch, timeout=60).batch.total == 1


@pytest.mark.parametrize("model", ["claude-9-enormous", "gpt-4o", "claude-3-opus-20240229"])
def test_a_model_that_is_not_there_is_named(claude: SimulatorHandle, model: str) -> None:
    with pytest.raises(InvalidInput, match=model):
        submit(["Hello"], model=model)
