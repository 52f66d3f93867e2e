"""The statements about metrics, on the threads of `Store`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Row, delete, exists, func, select, tuple_
from sqlalchemy.dialects.sqlite import insert as upsert

from clary.core.metrics import Point, Selection, Series, Statistics, merged
from clary.store.tables import DATAPOINTS, DELIVERIES, METRICS

_CHUNK = 400
"""Rows of one statement: SQLite binds 32,766 values at most, and a text of SQL is made for each length."""
_PRUNED = 5_000
"""Rows that are deleted before others may write."""
_FORGOTTEN = 86_400
"""Seconds after which a gateway that is silent is taken to be gone, and what it delivered last is forgotten."""

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


class Transactions(Protocol):
    """Runs work in a transaction."""

    def __call__(self, work: Callable[[Connection], _Result]) -> Awaitable[_Result]: ...


class Metrics:
    """Implements core.ports.MetricStore. `clock` gives seconds since the epoch."""

    def __init__(self, read: Transactions, write: Transactions, clock: Callable[[], float]) -> None:
        self._read = read
        self._write = write
        self._clock = clock
        self._ids: dict[Series, int] = {}
        """Row numbers; touched on the writing thread alone."""

    async def record(self, points: Sequence[Point], source: str = "", number: int = 0) -> bool:
        """Add points to what there is, in one transaction.

        With a source, its deliveries count from 1 on, and one whose number was there before is left out: False.
        """

        def work(connection: Connection) -> bool:
            if source and not _is_next(connection, source, number, int(self._clock())):
                return False
            for chunk in _chunks(merged(points)):
                self._know(connection, dict.fromkeys(point.series for point in chunk))
                _add(connection, [(self._ids[point.series], point) for point in chunk])
            return True

        try:
            return await self._write(work)
        except BaseException:
            self._ids = {}  # of rows that this transaction took back
            raise

    async def series(self, selection: Selection, after: int, limit: int) -> Sequence[tuple[int, Series]]:
        """Give series with their row numbers, those after row `after`; units of one metric are series of their own."""
        statement = _selected(selection).where(METRICS.c.id > after).order_by(METRICS.c.id).limit(limit)
        rows = await self._read(lambda connection: connection.execute(statement).all())
        return [(row.id, _series(row)) for row in rows]

    async def points(self, series: Series, start: int, end: int) -> Sequence[Point]:
        """Give the points from `start` to before `end` in order of time, whatever their units."""
        d = DATAPOINTS.c
        statement = (
            select(METRICS, DATAPOINTS)
            .join_from(METRICS, DATAPOINTS)
            .where(
                METRICS.c.namespace == series.namespace,
                METRICS.c.name == series.name,
                METRICS.c.dimensions == _text(series.dimensions),
                d.start >= start,
                d.start < end,
            )
            .order_by(d.start)
        )
        rows = await self._read(lambda connection: connection.execute(statement).all())
        return [Point(_series(row), row.start, _statistics(row)) for row in rows]

    async def prune(self, before: int) -> None:
        """Delete points that start before this second, and series that have none any more."""
        # In pieces: writers of other things wait for one piece, not for a day's points.
        old = tuple_(DATAPOINTS.c.metric, DATAPOINTS.c.start)
        oldest = select(DATAPOINTS.c.metric, DATAPOINTS.c.start).where(DATAPOINTS.c.start < before).limit(_PRUNED)
        statement = delete(DATAPOINTS).where(old.in_(oldest))
        while await self._write(lambda connection: connection.execute(statement).rowcount) == _PRUNED:
            pass

        def empty(connection: Connection) -> None:
            connection.execute(delete(METRICS).where(~exists().where(DATAPOINTS.c.metric == METRICS.c.id)))
            connection.execute(delete(DELIVERIES).where(DELIVERIES.c.at < self._clock() - _FORGOTTEN))
            self._ids = {}

        await self._write(empty)

    def _know(self, connection: Connection, wanted: Iterable[Series]) -> None:
        """Find the row numbers of series, making rows for new ones."""
        new = [series for series in wanted if series not in self._ids]
        if not new:
            return
        c = METRICS.c
        keys = [(series.namespace, series.name, _text(series.dimensions), series.unit) for series in new]
        rows = [dict(zip(("namespace", "name", "dimensions", "unit"), key, strict=True)) for key in keys]
        connection.execute(upsert(METRICS).on_conflict_do_nothing(), rows)
        same = tuple_(c.namespace, c.name, c.dimensions, c.unit).in_(keys)
        self._ids.update({_series(row): row.id for row in connection.execute(select(METRICS).where(same))})


def _is_next(connection: Connection, source: str, number: int, now: int) -> bool:
    """Note a delivery; False for one that was noted before."""
    last = connection.execute(select(DELIVERIES.c.number).where(DELIVERIES.c.source == source)).scalar()
    if last is not None and number <= last:
        return False
    values = {"number": number, "at": now}
    statement = upsert(DELIVERIES).values(source=source, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=[DELIVERIES.c.source], set_=values))
    return True


def _add(connection: Connection, points: Sequence[tuple[int, Point]]) -> None:
    """Read what there is, add to it, write it back: histograms do not add up in SQL."""
    d = DATAPOINTS.c
    places = [(id, point.start) for id, point in points]
    there = connection.execute(select(DATAPOINTS).where(tuple_(d.metric, d.start).in_(places)))
    before = {(row.metric, row.start): _statistics(row) for row in there}
    rows = []
    for (id, start), (_, point) in zip(places, points, strict=True):
        statistics = before.get((id, start), Statistics())
        statistics.merge(point.statistics)
        rows.append(_row(id, start, statistics))
    statement = upsert(DATAPOINTS)
    changed = {c.name: statement.excluded[c.name] for c in DATAPOINTS.columns if not c.primary_key}
    connection.execute(statement.on_conflict_do_update(index_elements=[d.metric, d.start], set_=changed), rows)


def _selected(selection: Selection) -> Any:
    c = METRICS.c
    conditions = []
    if selection.namespace is not None:
        conditions.append(c.namespace == selection.namespace)
    if selection.name is not None:
        conditions.append(c.name == selection.name)
    for name, value in selection.dimensions:
        # A part of the JSON: quotes inside names and values are escaped there, so this is found nowhere else.
        part = f"[{json.dumps(name)}," if value is None else json.dumps([name, value], separators=(",", ":"))
        conditions.append(func.instr(c.dimensions, part) > 0)
    if selection.active_since is not None:
        d = DATAPOINTS.c
        conditions.append(exists().where(d.metric == c.id, d.start >= selection.active_since))
    return select(METRICS).where(*conditions)


def _text(dimensions: Iterable[Sequence[str]]) -> str:
    return json.dumps([list(pair) for pair in dimensions], separators=(",", ":"))


def _series(row: Row[Any]) -> Series:
    return Series(row.namespace, row.name, tuple((name, value) for name, value in json.loads(row.dimensions)), row.unit)


def _statistics(row: Row[Any]) -> Statistics:
    histogram = {int(number): times for number, times in json.loads(row.histogram).items()}
    return Statistics(row._mapping["count"], row.sum, row.minimum, row.maximum, histogram)


def _row(id: int, start: int, statistics: Statistics) -> dict[str, object]:
    return {
        "metric": id,
        "start": start,
        "count": statistics.count,
        "sum": statistics.sum,
        "minimum": statistics.minimum,
        "maximum": statistics.maximum,
        "histogram": json.dumps(statistics.histogram, separators=(",", ":")),
    }


def _chunks(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    rest = iter(items)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk
