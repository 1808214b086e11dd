"""What is wrong with how Postgres would answer a statement."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

LARGE: Final = 20_000
"""Rows of a table that nobody should read through."""
MOST_COST: Final = 50_000
"""In the planner's units; to read a table of millions is ten times as much."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The nodes of a plan, as EXPLAIN tells them, and what it costs."""

    nodes: tuple[Mapping[str, Any], ...]
    cost: float
    rows: float = 0

    @property
    def indexes(self) -> set[str]:
        """Those that are looked into, or that find what is there already."""
        used = {node["Index Name"] for node in self.nodes if "Index Name" in node}
        return used.union(*(node.get("Conflict Arbiter Indexes", ()) for node in self.nodes))

    def partitions_of(self, table: str) -> set[str]:
        """The partitions of a table with a time of their own that are looked into."""
        return {node["Relation Name"] for node in self.nodes if node.get("Relation Name", "").startswith(f"{table}_2")}

    def scanned(self, large: set[str]) -> set[str]:
        """The large tables that are read through."""
        return {node["Relation Name"] for node in self.nodes if node["Node Type"] == "Seq Scan"} & large


def plan_of(query: Any, statement: str, settings: Iterable[str] = ()) -> Plan:
    """How Postgres would answer a statement after `settings`. It is not run."""
    query.execute("begin")
    for setting in settings:
        query.execute(setting)
    query.execute(f"explain (format json) {statement}")
    (answer,) = query.fetchone()
    query.execute("rollback")
    told = answer if isinstance(answer, list) else json.loads(answer)
    top = told[0]["Plan"]
    return Plan(tuple(_nodes(top)), float(top["Total Cost"]), float(top["Plan Rows"]))


def large_tables(query: Any) -> set[str]:
    """The tables and partitions that Postgres takes for large."""
    query.execute("select oid::regclass::text from pg_class where relkind = 'r' and reltuples > %s", (LARGE,))
    return {name for (name,) in query.fetchall()}


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)
