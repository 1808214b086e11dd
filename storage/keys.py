"""The names of the keys in Redis that Python uses; the scripts build theirs from the same namespace (lua/lib.lua)."""

from uuid import UUID

from tocsin.domain.setting_sections import RedisSettings


class Keys:
    """Every key but the inbox lists begins with the namespace; the lists have a prefix of their own."""

    def __init__(self, namespace: str, inbox_prefix: str) -> None:
        self.namespace = namespace
        self.inbox_prefix = inbox_prefix
        self.facts = f"{namespace}:facts"
        self.facts_bytes = f"{namespace}:facts:bytes"
        self.failed_facts = f"{namespace}:facts:failed"
        self.due = f"{namespace}:due"
        self.breakers = f"{namespace}:breakers"
        self.opt_outs = f"{namespace}:optouts"
        self.people_mirrored = f"{namespace}:people_mirrored"
        self.processes = f"{namespace}:processes"
        self.api_keys = f"{namespace}:api_keys"
        self.coming_life = f"{namespace}:life:next"
        self.wake = f"{namespace}:wake"
        self.dramatiq = f"{namespace}:dramatiq"
        self.installation = f"{namespace}:installation"
        self.queues = f"{namespace}:queues"
        self.counts = f"{namespace}:counts"
        self.stops = f"{namespace}:stops"

    @classmethod
    def of(cls, settings: RedisSettings) -> "Keys":
        """As they are set."""
        return cls(settings.namespace, settings.inbox_prefix)

    def inbox(self, user: str) -> str:
        return f"{self.inbox_prefix}:{user}"

    def event(self, event: UUID | str) -> str:
        return f"{self.namespace}:event:{event}"

    def recipients(self, event: UUID | str) -> str:
        return f"{self.namespace}:recipients:{event}"

    def contacts(self, event: UUID | str) -> str:
        return f"{self.namespace}:contacts:{event}"

    def bucket(self, name: str) -> str:
        """Flights whose ids begin so, by the rest of their ids (lua/lib.lua `bucket`)."""
        return f"{self.namespace}:flight:{name}"

    def chunk(self, event: UUID | str, number: int | str) -> str:
        return f"{self.namespace}:chunk:{event}:{number}"

    def cancelled(self, event: UUID | str) -> str:
        return f"{self.namespace}:cancelled:{event}"

    def known(self, event: UUID | str) -> str:
        return f"{self.namespace}:known:{event}"

    def read(self, notification: UUID | str) -> str:
        return f"{self.namespace}:read:{notification}"

    def profile(self, user: str) -> str:
        return f"{self.namespace}:profile:{user}"

    def due_in(self, channel: str, *, critical: bool = False) -> str:
        return f"{self.namespace}:due:{channel}{':critical' if critical else ''}"

    def published(self, user: str) -> str:
        return f"{self.namespace}:user:{user}"

    def idempotency(self, scope: str, key: str) -> str:
        return f"{self.namespace}:idempotency:{scope}:{key}"

    def rate(self, name: str) -> str:
        return f"{self.namespace}:rate:{name}"

    def event_key(self, key: str) -> str:
        return f"{self.namespace}:key:{key}"

    def lock(self, name: str) -> str:
        return f"{self.namespace}:lock:{name}"

    def once(self, name: str) -> str:
        return f"{self.namespace}:once:{name}"
