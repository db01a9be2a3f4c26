"""The thin end of Celery: one task per job, which asks the pipeline and tells Celery how it went."""

import traceback

from celery import shared_task
from celery.exceptions import Ignore, Retry

from promptmill.logs import get_logger
from promptmill.routes import ANSWER_TASK, RUN_DUE_TASK
from workers import lifecycle
from workers.monitoring import Revoked
from workers.pool import AsyncTask
from workers.verdicts import Answered, Deferred, Elsewhere, Failed, Withdrawn

log = get_logger(__name__)


class _PutBack(Retry):
    """Celery's sign for RETRY, raised and not made by `self.retry`: that would send a message, which the dispatcher does."""

    def __repr__(self) -> str:
        return f"Deferred({str(self)!r})"


@shared_task(
    name=ANSWER_TASK,
    base=AsyncTask,
    throws=(Failed,),
    knows_request=False,
    Request="workers.monitoring:JobRequest",
)
async def answer(job_id: str, dispatch: int) -> None:
    """Answer one job.

    What leaves here is shown in Flower with its traceback, so it leaves without its cause: an error deeper
    down may quote what it could not read. Celery keeps it for a while, so it also leaves without the frames of
    the job, on which its prompt hangs: it is raised outside the handlers.
    """
    verdict: Exception
    try:
        await lifecycle.answer(job_id, dispatch)
    except Deferred as deferred:
        verdict = _PutBack(str(deferred), exc=Deferred(str(deferred)))
    except Failed as failed:
        verdict = Failed(str(failed))
    except Withdrawn as withdrawn:
        verdict = Revoked(str(withdrawn))
    except Elsewhere as elsewhere:
        verdict = Ignore(str(elsewhere))
    except Answered:
        return
    except Exception as error:  # noqa: BLE001  # whatever it was, it ends this job and not the worker
        where = traceback.format_tb(error.__traceback__)
        log.error("job_broke", job_id=job_id, dispatch=dispatch, error=type(error).__name__, where=where)  # noqa: TRY400  # its text may quote a prompt
        verdict = Failed(f"unexpected {type(error).__name__}, see the worker's log")
    else:
        return
    try:
        raise verdict
    finally:
        del verdict  # it refers to this frame by its traceback


@shared_task(name=RUN_DUE_TASK, base=AsyncTask, knows_request=False)
async def run_due(schedule: str) -> None:  # noqa: ARG001  # shown in Flower; what is due is read from the table
    """A due time of a schedule has come; the thread for these looks what there is to do."""
    lifecycle.wake_recurring()
