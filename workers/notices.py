"""Notices: those who asked are told that a batch ended or was paused by itself, at least once.

The one idea: the database says what is owed and who sends it now; a notice says figures, never a prompt.
"""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from queue import SimpleQueue
from typing import Any

from promptmill import jsontext, webhooks
from promptmill.logs import get_logger
from promptmill.pricing import usd
from promptmill.states import BatchState
from promptmill.store import notices
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database, database_now
from promptmill.store.notices import Notice
from promptmill.webhooks import Delivery, Message, Secrets

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Herald:
    """Sends what is owed.

    Attributes:
        allowed: inner hosts that may be told; see `webhooks.check_url`.
        deliver: sends one message, given it and the time.
    """

    database: Database
    secrets: Secrets
    allowed: Collection[str] = ()
    deliver: Callable[..., Delivery] = field(default=webhooks.deliver)

    def tell(self) -> int:
        """Send what is owed now, all at once; how much of it arrived. It ends when the slowest delivery has.

        Raises:
            Unavailable: the database is away; what was sent may be sent again.
        """
        with self.database.read() as conn:
            owed = notices.due(conn, database_now(conn))
        if not owed:
            return 0
        with self.database.begin() as conn:
            now = database_now(conn)
            claimed = [each for each in owed if notices.claim(conn, each, now)]
        ended: SimpleQueue[tuple[Notice, Delivery]] = SimpleQueue()
        for each in claimed:
            # Daemons, which a pool of threads has not: a receiver must not hold up the end of the process.
            act = partial(self._deliver, each, now, ended)
            threading.Thread(target=act, name="promptmill-notice", daemon=True).start()
        return sum(self._settle(*ended.get()) for _ in claimed)

    def _deliver(self, notice: Notice, now: datetime, ended: SimpleQueue[tuple[Notice, Delivery]]) -> None:
        delivery = Delivery(fault="its address is encrypted, and no key here opens it")
        try:
            if notice.url is not None:
                message = message_about(notice.batch, notice.url, now)
                delivery = self.deliver(message, secrets=self.secrets, allowed=self.allowed, now=now)
        except Exception as error:  # noqa: BLE001  # who waits must hear of it, and there is another try
            delivery = Delivery(fault=type(error).__name__)
        finally:
            ended.put((notice, delivery))

    def _settle(self, notice: Notice, delivery: Delivery) -> bool:
        told = {
            "batch_id": notice.batch.id,
            "host": webhooks.host_of(notice.url or ""),
            "tries": notice.tries + 1,
        }
        if delivery.is_done:
            log.info("notice_sent", **told)
        elif notice.is_last:
            log.error("notice_given_up", why=str(delivery), **told)
        else:
            log.warning("notice_failed", why=str(delivery), **told)
        with self.database.begin() as conn:
            if not delivery.is_done:
                notices.failed(conn, notice, str(delivery))
            if delivery.is_done or notice.is_last:
                notices.settle(conn, notice, database_now(conn), is_told=delivery.is_done)
        return delivery.is_done


def message_about(row: BatchRow, url: str, now: datetime) -> Message:
    """What is told of a batch as it stands; its id is the same for the same event."""
    kind = f"batch.{row.state.value}"
    at = row.ended_at if row.state is BatchState.ENDED else row.resumed_at or row.started_at or row.created_at
    event = f"{row.id}.{row.state.value}.{int((at or now).timestamp() * 1_000_000)}"
    body = {"type": kind, "timestamp": _stamp(now), "data": _figures(row)}
    return Message(event, url, jsontext.written(body))


def _figures(row: BatchRow) -> dict[str, Any]:
    """In the words of `status --json`."""
    return {
        "batch_id": row.id,
        "name": row.name,
        "state": row.state.value,
        "reason": row.reason,
        "paused_by": row.paused_by and row.paused_by.value,
        "simulated": row.simulated,
        "model": row.model,
        "jobs": {
            "total": row.total,
            "succeeded": row.succeeded,
            "errored": row.errored,
            "canceled": row.canceled,
            "expired": row.expired,
        },
        "cost_usd": usd(row.cost_nanos),
        "attempts_of_unknown_cost": row.unpriced_attempts,
        "budget_usd": usd(row.budget_nanos),
        "created_at": _stamp(row.created_at),
        "ended_at": _stamp(row.ended_at),
    }


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
