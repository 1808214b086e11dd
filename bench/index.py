"""index: a million notifications wait to escalate, ten events of 100,000 people each: what one takes of Redis, how
long it is until all are posted and routed; and then, with all of them waiting, how late those are of which two thousand
a second become due, and how long a reader waits meanwhile.

What becomes due is posted at the same pace some seconds before: 200 people ten times a second, whose SMS is due after
twenty seconds. How late one was is the time between when it was due and when the index said that it may start, both by
Redis's clock. There is no provider for it: how fast a channel sends is another stage's matter.
"""

import random
import threading
import time
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from tocsin.bench import crowd
from tocsin.bench.api import Api
from tocsin.bench.broadcast import Site, site
from tocsin.bench.report import Figure, quantile, under
from tocsin.bench.servers import ADMIN_KEY

_WAITING: Final = 1_000_000
_EVENTS: Final = 10
_DUE_A_SECOND: Final = 2_000
_POSTS_A_SECOND: Final = 10
_DUE_AFTER_S: Final = 20
_READS_A_SECOND: Final = 20
_WARM_READS: Final = 20
_LIMIT_S: Final = 900.0
_READER: Final = "reader"
_POLICIES: Final = f"""
[policies]
bench_far = [{{ channel = "IN_APP", after = "0s" }}, {{ channel = "SMS", after = "2h" }}]
bench_soon = [{{ channel = "SMS", after = "{_DUE_AFTER_S}s" }}]
"""
_LATE: Final = (
    "select extract(epoch from (queued_at - scheduled_for)) * 1000 from deliveries"
    " where id between %s and %s and channel = 'SMS' and queued_at is not null"
)


def measure(seconds: float, people: int | None = None) -> list[Figure]:
    """Takes the million's time and some `seconds`."""
    each = max(100, (people or _WAITING) // _EVENTS)
    with site(each, settings=_POLICIES, sends=False) as here:
        waiting = _fill(here, each)
        due_s = max(3.0, min(15.0, seconds / 4))
        rate = _DUE_A_SECOND if people is None else max(_POSTS_A_SECOND, people // 50)
        late, reads = _run(here, due_s, rate)
    return [
        *waiting,
        under(
            "index_lateness_p99",
            "ms",
            [quantile(late, 0.99)],
            250,
            due_a_second=rate,
            looked_at=len(late),
            median_ms=round(quantile(late, 0.5), 1),
            longest_ms=round(max(late, default=0.0)),
        ),
        under("index_read_p99", "ms", [quantile(reads, 0.99)], 5, median_ms=round(quantile(reads, 0.5), 2)),
    ]


def _fill(here: Site, each: int) -> list[Figure]:
    """Ten events to `each` people, from the first post to the last chunk."""
    waiting, many = here.waiting, each * _EVENTS
    empty_mb = waiting.used_mb()
    began_s = time.monotonic()
    for _ in range(_EVENTS):
        crowd.tell_everybody(here.sender, each, policy="bench_far", deliveryStrategy="ESCALATION")
    crowd.until(lambda: waiting.work() >= many, _LIMIT_S, 0.25)
    took_s = time.monotonic() - began_s
    crowd.until(lambda: not waiting.facts() and waiting.work() <= many, _LIMIT_S, 0.25)
    index_bytes = waiting.bytes_of("tocsin:flight:*") + waiting.bytes_of("tocsin:due*")
    taken = (waiting.used_mb() - empty_mb) * 1e6
    beside_it = waiting.bytes_of("notifications:*") + waiting.bytes_of("tocsin:profile:*")
    return [
        under("index_bytes", "bytes", [(taken - beside_it) / many], 300, of_the_index=round(index_bytes / many)),
        under("index_routed", "s", [took_s], 60, waiting=many),
    ]


def _run(here: Site, due_s: float, rate: int) -> tuple[list[float], list[float]]:
    """How late each was that became due, and how long each reader waited while they did; both in ms."""
    mine = _readable(here, int(due_s * _READS_A_SECOND) + _WARM_READS)
    reader = Api(here.http.port, here.sender.ask("POST", f"/api/users/{_READER}/token")["token"])
    for notification in mine[:_WARM_READS]:
        _read(reader, notification)
    began_s = time.monotonic()
    posted: list[UUID] = []
    posting = threading.Thread(target=_post_at_pace, args=(here, due_s, rate, posted))
    posting.start()
    time.sleep(max(0.0, began_s + _DUE_AFTER_S - time.monotonic()))
    reads = _read_at_pace(reader, mine[_WARM_READS:], due_s)
    posting.join()
    crowd.until(lambda: not here.waiting.facts(), _LIMIT_S, 0.25)
    return [float(late) for event in posted for late in here.stored.column(_LATE, event)], reads


def _post_at_pace(here: Site, due_s: float, rate: int, posted: list[UUID]) -> None:
    sender, together = Api(here.http.port, ADMIN_KEY), rate // _POSTS_A_SECOND
    next_s = time.monotonic()
    for number in range(int(due_s * _POSTS_A_SECOND)):
        time.sleep(max(0.0, next_s - time.monotonic()))
        next_s += 1 / _POSTS_A_SECOND
        people = [{"id": f"s{number}-{place}", "phone": f"+1415{5_550_000 + place:07d}"} for place in range(together)]
        event = {"type": "community.update", "message": "It is due.", "policy": "bench_soon", "recipients": people}
        event |= {"channels": ["SMS"], "deliveryStrategy": "ESCALATION"}
        posted.append(UUID(sender.ask("POST", "/api/notifications", event)["id"]))


def _readable(here: Site, count: int) -> Sequence[str]:
    """Notifications of one reader, stored, whose later step waits."""
    event = {"type": "community.update", "message": "Read me.", "policy": "bench_far", "deliveryStrategy": "ESCALATION"}
    event |= {"recipients": [{"id": _READER, "phone": "+14155550123"}]}
    made = crowd.tell_often(here.sender, count, event)
    crowd.until(lambda: not here.waiting.facts(), _LIMIT_S, 0.25)
    return made


def _read_at_pace(reader: Api, notifications: Sequence[str], seconds: float) -> list[float]:
    gaps, latencies = random.Random(1), []
    next_s = time.perf_counter()
    end_s = next_s + seconds
    for notification in notifications:
        next_s += gaps.expovariate(_READS_A_SECOND)
        if next_s > end_s:
            break
        time.sleep(max(0.0, next_s - time.perf_counter()))
        _read(reader, notification)
        latencies.append((time.perf_counter() - next_s) * 1000)
    return latencies


def _read(reader: Api, notification: str) -> None:
    if not reader.ask("POST", f"/api/notifications/{notification}/read")["notification"]["read"]:
        raise RuntimeError("a notification was not read")
