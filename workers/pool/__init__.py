"""Celery's worker pool on one event loop, and the loop itself for those who make clients on it."""

from workers.pool.bridge import AsyncTask, JobCancelled
from workers.pool.loop import current_loop, on_loop_start, on_loop_stop, worst_lag
from workers.pool.taskpool import TaskPool

__all__ = [
    "AsyncTask",
    "JobCancelled",
    "TaskPool",
    "current_loop",
    "on_loop_start",
    "on_loop_stop",
    "worst_lag",
]
