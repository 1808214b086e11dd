"""The audit log: what admins did. Accepted events are audited by their own row (sender, source, cid)."""

from typing import Any

from tocsin.storage.models import AuditEntry


def audit(action: str, actor: str, cid: str | None = None, detail: dict[str, Any] | None = None) -> None:
    """Notes that `actor` did `action`, such as "key.revoked". Part of the transaction under way, if there is one.
    `detail` holds no secret and no address."""
    AuditEntry.insert(action=action, actor=actor, cid=cid, detail=detail or {}).execute()
