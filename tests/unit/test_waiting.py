"""`wait_until` is patient with a busy machine, and not for ever."""

import time
from collections.abc import Callable

import pytest


@pytest.mark.parametrize(("sleep_s", "given_up_after"), [(0.01, 10), (1.0, 20)])
def test_a_sleep_that_takes_too_long_is_made_good_once(
    wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch, sleep_s: float, given_up_after: float
) -> None:
    now = [0.0]
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now[0])
        patch.setattr(time, "sleep", lambda _: now.append(now.pop() + sleep_s))
        with pytest.raises(pytest.fail.Exception, match="not true within 10 s"):
            wait_until(lambda: False, timeout=10)
    assert now[0] == pytest.approx(given_up_after, abs=1.1)
