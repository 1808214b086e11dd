"""Figures for Prometheus (O2): what this process sent, and what waits in Redis and for how long."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tocsin.domain.delivery import Channel, Reason, Status
from tocsin.storage.store import Store


class SendCounters:
    """What this process sent, by channel, provider, status and reason, and how long the provider took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "tocsin_attempts",
            "Attempts that ended, by what they ended in",
            ["channel", "provider", "status", "reason"],
            registry=registry,
        )
        self._seconds = Histogram(
            "tocsin_provider_seconds",
            "Time that a provider took for one attempt",
            ["channel", "provider"],
            registry=registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )

    def ended(self, channel: Channel, provider: str, status: Status, reason: Reason | None, took_s: float) -> None:
        """Counts one attempt."""
        self._attempts.labels(channel, provider, status, reason or "").inc()
        self._seconds.labels(channel, provider).observe(took_s)


class Gauges:
    """Refreshed before each look; none of them costs anything between looks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._facts = Gauge(
            "tocsin_facts_waiting", "Journal entries that Postgres does not have yet", registry=registry
        )
        self._facts_age = Gauge(
            "tocsin_facts_oldest_seconds", "Age of the oldest waiting journal entry", registry=registry
        )
        self._due = Gauge(
            "tocsin_due", "Entries of the time index: steps to start, events and chunks", registry=registry
        )
        self._waiting = Gauge(
            "tocsin_deliveries_open", "Deliveries started and not final", ["channel"], registry=registry
        )
        self._late = Gauge(
            "tocsin_deliveries_oldest_ready_seconds",
            "Age of the oldest delivery that may start",
            ["channel"],
            registry=registry,
        )
        self._memory = Gauge("tocsin_redis_memory_bytes", "Memory that Redis uses", registry=registry)
        self._processes = Gauge("tocsin_actor_processes", "Processes that run actors", registry=registry)

    async def refresh(self, store: Store) -> None:
        """Asks Redis. Raises RedisAway."""
        depths = await store.depths()
        self._facts.set(depths.facts)
        self._facts_age.set(depths.facts_oldest_s)
        self._due.set(depths.due)
        self._memory.set(depths.memory_bytes)
        self._processes.set(depths.actor_processes)
        for channel in Channel:
            if channel is not Channel.IN_APP:
                self._waiting.labels(channel).set(depths.open[channel])
                self._late.labels(channel).set(depths.oldest_ready_s[channel])
