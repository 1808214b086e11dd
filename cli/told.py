"""How events, notifications and deliveries are told to people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from tocsin.cli.journey import CHANNEL_NAMES, Document, about, clock, milliseconds, step_line
from tocsin.cli.screen import Screen, plain, status_text


def tell_event(screen: Screen, event: Document) -> None:
    """An event and its counts."""
    screen.tell(_heading(event["title"], event["type"], status_text(event["status"])))
    followed, asked = event["deliveryStrategy"], event["askedStrategy"]
    strategy = followed if asked in {None, followed} else f"{followed} ({asked} was asked)"
    screen.tell(
        f"{event['notificationPriority']}, {strategy}, policy {plain(event['policy'])}, by {plain(event['sender'])}"
    )
    screen.tell(f"accepted {clock(event['acceptedAt'])} UTC, correlation id {plain(event['correlationId'])}")
    if event["cancelledAt"]:
        screen.tell(f"cancelled {clock(event['cancelledAt'])} UTC: {plain(event['cancelReason'] or '')}", "yellow")
    if event["error"]:
        screen.tell(plain(event["error"]), "red")
    tell_counts(screen, event["counts"])


def tell_counts(screen: Screen, counts: Document) -> None:
    """What became of an event."""
    screen.tell(reached(counts))
    rows = [
        (CHANNEL_NAMES[channel], status_text(standing), count)
        for channel, standings in counts["byChannel"].items()
        for standing, count in standings.items()
    ]
    screen.tell()
    screen.table(["channel", "status", "deliveries"], rows)
    if counts["suppressed"]:
        screen.table(["suppressed because", "deliveries"], list(counts["suppressed"].items()))


def reached(counts: Document) -> str:
    """How many people an event has, and how far they are, in one line."""
    people = "recipients not resolved yet" if counts["expected"] is None else f"{counts['expected']} recipients"
    told = f"{people}, {counts['notifications']} notifications, {counts['read']} read"
    if counts["missing"]:
        told += f", {counts['missing']} missing"
    return told + (f", {counts['unknown']} unknown" if counts["unknown"] else "")


def progress_line(told: Document) -> str:
    """How far an event is, in one line."""
    counts = told["counts"]
    parts = [(name, counts[name]) for name in ("sent", "delivered", "failed", "cancelled", "uncertain", "waiting")]
    parts.insert(3, ("suppressed", sum(counts["suppressed"].values())))
    standing = ", ".join(f"{count} {name}" for name, count in parts if count)
    return f"{told['status']}: {reached(counts)}" + (f"; {standing}" if standing else "")


def tell_notification(screen: Screen, notification: Document) -> None:
    """Whose notification it is and what it says."""
    mark = Text("read", style="green") if notification["read"] else Text("unread", style="yellow")
    screen.tell(_heading(notification["title"], notification["type"], mark))
    person = plain(notification["recipientId"])
    screen.tell(f"{notification['priority']}, to {person}, event {notification['eventId']}")
    screen.tell()


def tell_deliveries(screen: Screen, found: Sequence[Document], *, with_person: bool) -> None:
    """Deliveries as a table."""
    if not found:
        screen.tell("No deliveries.", "dim")
        return
    person = ["to"] if with_person else []
    columns = ["delivery", *person, "step", "channel", "status", "attempts", "scheduled (UTC)", "about"]
    screen.table(columns, [_row(each, with_person=with_person) for each in found])


def tell_steps(screen: Screen, steps: Sequence[Document], notification: Document) -> None:
    """What happened, in the order of time, counted from when the event was accepted."""
    screen.tell()
    for step in steps:
        screen.tell(step_line(step, milliseconds(notification["createdAt"])))


def _row(delivery: Document, *, with_person: bool) -> list[object]:
    count, most = delivery["attemptCount"], delivery["maxAttempts"]
    return [
        delivery["id"],
        *([delivery["recipientId"]] if with_person else []),
        delivery["step"],
        CHANNEL_NAMES[delivery["channel"]],
        status_text(delivery["status"]),
        f"{count} of {most}" if most else count,
        clock(delivery["scheduledFor"]),
        about(delivery),
    ]


def _heading(title: str | None, event_type: str, mark: Text) -> Text:
    named = [(plain(title), "bold"), f"  {event_type}"] if title else [(event_type, "bold")]
    return Text.assemble(*named, "  ", mark)
