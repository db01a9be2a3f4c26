"""An audit, for people and for programs. Pure."""

from typing import Any

from producers.audit_checks import Check, Note
from producers.auditing import AuditReport
from producers.documents import stamp
from producers.tables import columns
from producers.wrapping import folded
from promptmill.pricing import usd


def audit_table(report: AuditReport) -> str:
    """What was expected and what was found; what is wrong is marked, and said again at the end."""
    rows = [
        (
            check.what,
            ("at most " if check.at_most else "") + _figure(check.expected, is_money=check.is_money),
            _figure(check.found, is_money=check.is_money),
            "ok" if check.ok else "WRONG",
        )
        for check in report.checks
    ]
    lines = [columns(("WHAT", "EXPECTED", "FOUND", ""), rows, right=(1, 2))]
    lines += [folded(f"note: {note}") for note in (*map(_note, report.notes), *report.remarks)]
    return "\n".join([*lines, verdict(report)])


def verdict(report: AuditReport) -> str:
    """The audit in a sentence."""
    batch = report.batch
    name = f"{batch.name} ({batch.state.value}{', simulated' if batch.simulated else ''})"
    if report.broken:
        return f"{name}: {len(report.broken)} of {len(report.checks)} checks DO NOT HOLD"
    but = ", but the simulator's book was not read" if report.unread else ""
    return f"{name}: all {len(report.checks)} checks hold{but}"


def audit_document(report: AuditReport) -> dict[str, Any]:
    """What `audit --json` prints; an amount is exact dollars as text where `unit` says so."""
    return {
        "batch_id": report.batch.id,
        "name": report.batch.name,
        "state": report.batch.state.value,
        "simulated": report.batch.simulated,
        "at": stamp(report.at),
        "ok": report.ok,
        "checks": [_check_entry(check) for check in report.checks],
        "notes": [
            {"name": note.name, "what": note.what, "count": note.count, "usd": usd(note.nanos)}
            for note in report.notes
        ],
        "remarks": list(report.remarks),
    }


def _check_entry(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "what": check.what,
        "expected": usd(check.expected) if check.is_money else check.expected,
        "found": usd(check.found) if check.is_money else check.found,
        "unit": "usd" if check.is_money else None,
        "at_most": check.at_most,
        "ok": check.ok,
    }


def _figure(value: int, *, is_money: bool) -> str:
    return f"${usd(value)}" if is_money else f"{value:,}"


def _note(note: Note) -> str:
    money = "" if note.nanos is None else f" (${usd(note.nanos)})"
    return f"{note.count:,} {note.what}{money}"
