"""`celery -A workers.app worker`, without what Celery's umbrella command loads beside it.

That loads every command of every package that is installed: Flower with its web server, a shell, a monitor. It took
23 MB of each worker and half of the CPU of its start. The options are those of `celery worker`, read by the same code.
"""

import sys

from celery.bin.base import CLIContext
from celery.bin.worker import worker

from workers.app import app


def main(words: list[str] | None = None) -> None:
    """Run a worker; takes the words `-A workers.app worker OPTIONS…`, so that the process can be told as one."""
    words = sys.argv[1:] if words is None else words
    options = words[words.index("worker") + 1 :]
    context = CLIContext(app=app, no_color=False, workdir=None, quiet=False)
    worker.main(args=options, prog_name="celery worker", obj=context)
