"""What binds a batch, and whether somebody has chosen it."""

from pathlib import Path

import pytest

from producers.bottleneck import CONCURRENCY, Bottleneck
from producers.limits_reader import LimitsReader
from promptmill import settings
from promptmill.limits import Ceilings, Pool
from promptmill.store.database import Database
from promptmill.testing import a_batch


@pytest.mark.parametrize(("taught", "is_default"), [(Ceilings(requests=60), False), (Ceilings(), True)])
def test_a_limit_that_nobody_set_or_taught_is_known_for_a_default(
    clean_redis: str, database: Database, tmp_path: Path, taught: Ceilings, is_default: bool
) -> None:
    of_redis = settings.load(environ={"REDIS_URL": clean_redis}, folder=tmp_path)
    batch = a_batch(database, 1)
    with LimitsReader(of_redis) as reader:
        reader.teach({Pool("research", batch.model): taught})

    with Bottleneck(of_redis) as bottleneck:
        assert bottleneck.of(batch, waiting=1, running=0, slots=10) == "requests"
        assert bottleneck.is_default("requests") is is_default
        assert bottleneck.of(batch, waiting=1, running=10, slots=10) == CONCURRENCY
        assert not bottleneck.is_default(CONCURRENCY)


def test_a_redis_that_is_set_and_does_not_answer_is_what_waiting_prompts_wait_for(
    database: Database, tmp_path: Path
) -> None:
    nowhere = settings.load(environ={"REDIS_URL": "redis://127.0.0.1:1/0"}, folder=tmp_path)
    batch = a_batch(database, 1)

    with Bottleneck(nowhere) as bottleneck:
        assert bottleneck.of(batch, waiting=1, running=0, slots=10) is None
        assert bottleneck.fault is not None
        assert "the Redis at redis://127.0.0.1:1/0 does not answer; start it" in bottleneck.fault
        bottleneck.of(batch, waiting=0, running=1, slots=10)
        assert bottleneck.fault is None
