"""Who may reach our Flower, and what it makes of a job that begins again."""

import pytest
from celery.events.state import State

from promptmill.errors import ConfigurationError
from workers.flower import JobTask, check_access


class Jobs(State):
    Task = JobTask


def after(*events: str) -> str:
    """The state of a job of which these were told, a second apart."""
    jobs = Jobs()
    for at, event in enumerate(events, 1):
        told = {
            "type": f"task-{event}",
            "uuid": "job",
            "hostname": "w",
            "timestamp": at,
            "local_received": at,
        }
        jobs.event({**told, "clock": at, "pid": 1})
    return str(jobs.tasks["job"].state)


def test_a_job_that_a_person_retries_begins_again() -> None:
    assert after("received", "started", "failed", "received") == "RECEIVED"
    assert after("received", "started", "succeeded", "received", "started", "failed") == "FAILURE"
    assert after("received", "started", "revoked", "received", "started", "succeeded") == "SUCCESS"


def test_a_deferred_job_begins_again() -> None:
    assert after("received", "started", "retried", "received", "started") == "STARTED"


@pytest.mark.parametrize("where", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_no_password_is_needed(where: str) -> None:
    check_access(where=where, passwords=[], signs_in=False)


@pytest.mark.parametrize("where", ["", "0.0.0.0", "::", "10.0.0.3", "a socket file"])
def test_elsewhere_one_is(where: str) -> None:
    check_access(where=where, passwords=["name:password"], signs_in=False)
    check_access(where=where, passwords=[], signs_in=True)
    with pytest.raises(ConfigurationError, match="FLOWER_BASIC_AUTH"):
        check_access(where=where, passwords=[], signs_in=False)


@pytest.mark.parametrize("password", ["nobody", ":x", "x:", "ü:ü"])
def test_a_password_that_nobody_could_give_is_refused(password: str) -> None:
    with pytest.raises(ConfigurationError, match="name:password") as refusal:
        check_access(where="127.0.0.1", passwords=[password], signs_in=False)
    assert password not in str(refusal.value).partition("it must")[0]
