"""What is tried before a stack is started."""

from pathlib import Path

import pytest

from producers.stack import local_stack
from promptmill.errors import ConfigurationError
from promptmill.settings import load


def test_nothing_is_started_where_the_broker_does_not_answer(tmp_path: Path) -> None:
    settings = load(environ={"PROMPTMILL_BROKER_URL": "amqp://guest:hunter2@127.0.0.1:1//"}, folder=tmp_path)

    with (
        pytest.raises(
            ConfigurationError, match="PROMPTMILL_BROKER_URL: nothing answers at amqp://"
        ) as caught,
        local_stack(settings.model_copy(update={"home": tmp_path / "home"}), print),
    ):
        pass

    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / "home").exists()
