"""Figures for Prometheus (O2): what this process sent, and what waits in Redis and for how long."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tocsin.domain.delivery import Channel, Reason, Status
from tocsin.domain.rate import Rate
from tocsin.storage.facts import Entry
from tocsin.storage.memory import Work
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
        # Finding a figure by its labels takes longer than counting.
        self._count = cache(self._attempts.labels)
        self._time = cache(self._seconds.labels)

    def ended(self, channel: Channel, provider: str, status: Status, reason: Reason | None, took_s: float) -> None:
        """Counts one attempt."""
        self.not_sent(channel, provider, status, reason)
        self._time(channel, provider).observe(took_s)

    def not_sent(self, channel: Channel, provider: str, status: Status, reason: Reason | None) -> None:
        """Counts one that ended without a call of the provider."""
        self._count(channel, provider, status, reason or "").inc()


class StoredCounters:
    """What this process told Postgres, whoever did it; told again after a crash it is counted again."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._retries = Counter(
            "tocsin_retries", "Attempts that follow one that failed", ["channel", "reason"], registry=registry
        )
        self._cancelled = Counter(
            "tocsin_cancelled", "Deliveries that were not sent any more", ["channel", "reason"], registry=registry
        )

    def stored(self, entries: Sequence[Entry]) -> None:
        """Counts what became of deliveries in these journal entries."""
        for _, facts in entries:
            for fact in facts:
                if fact["f"] == "moved":
                    self._count(fact["d"])

    def _count(self, moves: Sequence[Sequence[Any]]) -> None:
        for _, _, channel, _, status, _, _, detail in moves:
            if status == Status.RETRYING:
                self._retries.labels(channel, detail.get("reason", "")).inc()
            elif status == Status.CANCELLED:
                self._cancelled.labels(channel, detail.get("reason", "")).inc()


class Gauges:
    """Refreshed before each look; none of them costs anything between looks."""

    def __init__(
        self,
        registry: CollectorRegistry,
        providers: Mapping[Channel, str],
        rates: Mapping[Channel, Rate] | None = None,
    ) -> None:
        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"tocsin_{name}", what, labels, registry=registry)

        self._providers = providers
        self._limited = [(channel, providers[channel], rate) for channel, rate in (rates or {}).items()]
        carrier = ("channel", "provider")
        self._rate = gauge("rate_limit", "Messages a second that a provider is given, where that is set", *carrier)
        self._tokens = gauge("rate_tokens", "Messages that may begin now by that; 0 while it holds them up", *carrier)
        self._breakers = gauge("breaker_open", "1 while a provider that is down rests or is on trial", *carrier)
        self._facts = gauge("facts_waiting", "Journal entries that Postgres does not have yet")
        self._facts_bytes = gauge("facts_bytes", "What the journal holds that Postgres has not heard of")
        self._facts_age = gauge("facts_oldest_seconds", "Age of the oldest waiting journal entry")
        self._stopped = gauge("work_stopped", "1 while Redis or the journal is too full for this work", "work")
        self._due = gauge("due", "Entries of the time index: steps to start, events and chunks")
        self._waiting = gauge("deliveries_open", "Deliveries started and not final", "channel")
        self._late = gauge("deliveries_oldest_ready_seconds", "Age of the oldest that may start", "channel")
        self._memory = gauge("redis_memory_bytes", "Memory that Redis uses")
        self._processes = gauge("actor_processes", "Processes that run actors")
        self._dead = gauge("dead_letters", "Dead letters that nobody replayed or discarded, up to 100,000")
        self._held = gauge("deliveries_held", "Deliveries that somebody has to settle, up to 100,000")
        for channel, provider, rate in self._limited:
            self._rate.labels(channel, provider).set(rate.per_s)

    async def refresh(self, store: Store) -> None:
        """Asks Redis. Raises RedisAway."""
        resting = {(each.channel, each.provider) for each in await store.breakers.resting()}
        for carried in self._providers.items():
            self._breakers.labels(*carried).set(carried in resting)
        for (channel, provider, _), bucket in zip(self._limited, await store.rates.buckets(self._limited), strict=True):
            self._tokens.labels(channel, provider).set(bucket.tokens)
        depths = await store.depths()
        self._facts.set(depths.facts)
        self._facts_age.set(depths.facts_oldest_s)
        self._facts_bytes.set(depths.facts_bytes)
        stopped = await store.memory.stopped()
        for work in Work:
            self._stopped.labels(work.name.lower()).set(work in stopped)
        self._due.set(depths.due)
        self._memory.set(depths.memory_bytes)
        self._processes.set(depths.actor_processes)
        for gauge, counted in ((self._dead, depths.dead_letters), (self._held, depths.held)):
            if counted is not None:
                gauge.set(counted)
        for channel in Channel:
            if channel is not Channel.IN_APP:
                self._waiting.labels(channel).set(depths.open[channel])
                self._late.labels(channel).set(depths.oldest_ready_s[channel])
