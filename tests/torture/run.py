"""`make torture`: runs the program under faults, waits for quiet, checks. Exit status 1 when anything was wrong."""

import asyncio
import gc
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from loguru import logger
from rich.console import Console

from tests.torture import report
from tests.torture.check import Check
from tests.torture.checks import check_all
from tests.torture.driver import Driver
from tests.torture.evidence import Evidence, flights, gather, statuses_of
from tests.torture.faults import Faults, schedule
from tests.torture.ledger import Ledger
from tests.torture.options import Options, options_of
from tests.torture.quiet import quiet
from tests.torture.world import World

_ASKED_OF_API = 100
_ASKED_AGAIN = 5
_REBUILT_S = 60.0


async def torture(options: Options, folder: Path, console: Console) -> bool:
    """Whether everything held."""
    ledger = Ledger()
    world = World(folder, options, ledger)
    driver = Driver(world)
    began = time.monotonic()
    try:
        await world.open()
        await driver.people()
        console.print(f"seed {options.seed}: started in {time.monotonic() - began:.0f} s, in {folder}")
        faults = schedule(options.seed, options.seconds, options.fault_every_s, options.without)
        await asyncio.gather(driver.run(options.seconds), Faults(world).run(faults), _progress(world, driver, console))
        for mood in world.moods.values():
            mood.calm()
        took_s, moving = await quiet(world, options.quiet_s, console)
        evidence = await asyncio.to_thread(gather, ledger, world.postgres_url, world.redis)
        await _ask_api(world, driver, evidence)
        if not moving and not any("empty_redis".startswith(kind) for kind in options.without):
            evidence.rebuilt = await _rebuilt(world, len(evidence.flights))
    finally:
        await world.close()
        await driver.close()
    checks = [*check_all(evidence), _ran(ledger, moving)]
    figures = _figures(options, evidence, took_s, moving) | {"replayed": driver.replayed}
    (folder / "given-up.log").write_text("\n".join(ledger.given_up))
    report.show(console, figures, checks, evidence)
    if options.report:
        report.write(options.report, figures, checks, ledger.faults)
    return not any(check.wrong for check in checks)


async def _progress(world: World, driver: Driver, console: Console) -> None:
    """A line a minute. `late` is by how much this process itself was late at worst, its providers with it: where that
    comes near their time-outs, the machine is too slow for the rate."""
    start = time.monotonic()
    while (left := world.options.seconds - (time.monotonic() - start)) > 0:
        late_s, next_s = 0.0, time.monotonic() + min(60.0, left)
        while time.monotonic() < next_s:
            before = time.monotonic()
            await asyncio.sleep(0.1)
            late_s = max(late_s, time.monotonic() - before - 0.1)
        ledger = world.ledger
        console.print(
            f"{time.monotonic() - start:5.0f} s  {driver.asked} deliveries asked for, {len(ledger.calls)} calls of "
            f"providers, {len(ledger.faults)} faults, {len(ledger.trouble)} troubles, {late_s:.1f} s late"
        )


async def _ask_api(world: World, driver: Driver, evidence: Evidence) -> None:
    """What the API says of some events, beside their rows. A look-up may change these at any time: then it is asked
    again."""
    events = list(evidence.events)
    for event in random.Random(0).sample(events, min(_ASKED_OF_API, len(events))):
        for _ in range(_ASKED_AGAIN):
            before = await asyncio.to_thread(statuses_of, world.postgres_url, event)
            answer = await driver.counts(event)
            if before == await asyncio.to_thread(statuses_of, world.postgres_url, event):
                break
        if answer is not None:
            evidence.api_counts[event] = answer["counts"]["deliveries"], before


async def _rebuilt(world: World, expected: int) -> dict[str, str]:
    """Empties Redis once more, and answers what is in motion when all of it is back, or time is up."""
    await asyncio.to_thread(world.redis.flushall)
    deadline = time.monotonic() + _REBUILT_S
    while True:
        found = await asyncio.to_thread(flights, world.redis)
        if len(found) >= expected or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.5)


def _ran(ledger: Ledger, moving: str) -> Check:
    """Processes stop when they are told to, and only then; everything comes to an end."""
    check = Check("processes run, stop when told, and come to an end", "processes", len(ledger.faults))
    check.wrong += [("", trouble) for trouble in ledger.trouble]
    check.wrong += [("", f"not quiet in time: {moving}")] if moving else []
    return check


def _figures(options: Options, evidence: Evidence, took_s: float, moving: str) -> dict[str, Any]:
    ledger = evidence.ledger
    statuses = Counter(delivery.status for delivery in evidence.deliveries.values())
    unknown = Counter(row.reason for row in evidence.deliveries.values() if row.status == "UNCERTAIN")
    return {
        "seed": options.seed,
        "seconds": options.seconds,
        "quiet after": f"{took_s:.0f} s" + (f" (still {moving})" if moving else ""),
        "faults": len(ledger.faults),
        "events": len(ledger.accepted),
        "of them in Redis alone at first": sum(e.durability == "redis" for e in ledger.accepted.values()),
        "deliveries": len(evidence.deliveries),
        "statuses": ", ".join(f"{status} {count}" for status, count in statuses.most_common()),
        "uncertain because of": ", ".join(f"{reason} {count}" for reason, count in unknown.most_common()) or "none",
        "calls of providers": len(ledger.calls),
        "taken by providers": sum(call.accepted_ms is not None for call in ledger.calls),
        "reads": len(ledger.reads),
        "cancels": len(ledger.cancels),
        "opt-outs": len(ledger.opt_outs),
        "receipts": len(ledger.receipts),
        "not done": ", ".join(f"{what} × {count}" for what, count in ledger.refused.items()) or "none",
    }


def main() -> int:
    """0 when everything held."""
    logger.remove()
    # What is noted is kept to the end: looking through it again and again would take longer with each minute.
    gc.set_threshold(100_000, 50, 1_000)
    options = options_of(os.environ)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(width=max(120, Console().width), emoji=False)
    held = asyncio.run(torture(options, folder, console))
    console.print(f"seed {options.seed}: {'everything held' if held else f'NOT everything held; logs are in {folder}'}")
    if held and options.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
