"""The store on SQLite: every statement that Clary sends to a database.

One thread writes and a few read, as SQLite itself works: a call crosses to a thread once, not once per statement, and
readers never wait for the writer (WAL). A call that has returned has been synced to disk.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from typing import Any, TypeVar

from sqlalchemy import (
    URL,
    Connection,
    Row,
    Select,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from clary.core.identities import Role, User
from clary.core.ports import ListQuery, Page
from clary.core.resources import KINDS, Kind, Resource
from clary.errors import Fatal
from clary.store import identities
from clary.store.asynchronous import AsyncRequests, Notifications
from clary.store.metrics import Metrics
from clary.store.tables import RESOURCES, TAGS

_READERS = 2
_BUSY_SECONDS = 30
"""How long to wait for another process's write: a dying control process and its successor overlap for moments."""

_Result = TypeVar("_Result")
_KINDS = {kind.name: kind for kind in KINDS}
_SORT_COLUMN = {
    "CreationTime": RESOURCES.c.created_at,
    "Name": RESOURCES.c.name,
    "Status": RESOURCES.c.status_text,
}


class Store:
    """Keeps everything in one SQLite file: all the stores of `core.ports`."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self._reading = engine
        self._writing = engine.execution_options(begin="BEGIN IMMEDIATE")
        self._clock = clock
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-read")
        self.metrics = Metrics(self._read, self._write, clock)
        self.async_requests = AsyncRequests(self._read, self._write, clock)
        self.notifications = Notifications(self._read, self._write, clock)

    @classmethod
    async def open(cls, path: Path, clock: Callable[[], float] = time.time) -> Store:
        """Open the file, making it and its folder where they do not exist, and bring its schema up to date.

        `clock` gives seconds since the epoch. Another process may have the same file open. Raises Fatal for a file of a
        newer Clary.
        """
        # The environments of models hold secrets: the folder is for its owner alone.
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        store = cls(_engine(path), clock)
        try:
            await store._run(store._writer, store._writing.begin, _migrate)
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Finish what is under way and close the file."""
        for pool in (self._writer, self._readers):
            await asyncio.to_thread(pool.shutdown)
        self._reading.dispose()

    # Resources

    async def insert(self, resource: Resource, tags: Mapping[str, str]) -> Resource | None:
        """Store a new one with its tags, in one transaction; None where the name is taken. Sets both times."""

        def work(connection: Connection) -> Resource:
            now = self._now()
            row = connection.execute(
                insert(RESOURCES)
                .values(
                    kind=resource.kind,
                    name=resource.name,
                    key=_key(_KINDS[resource.kind], resource.name),
                    arn=resource.arn,
                    spec=resource.spec,
                    generation=resource.generation,
                    created_at=now,
                    modified_at=now,
                    deleting=resource.deleting,
                    **_status_columns(resource.kind, resource.status),
                )
                .returning(RESOURCES)
            ).one()
            _write_tags(connection, row.id, tags)
            return _resource(row)

        try:
            return await self._write(work)
        except IntegrityError:
            # The unique index is the judge, not a read before: of two racing creates one wins.
            return None

    async def get(self, kind: Kind, name: str) -> Resource | None:
        """Give the resource of that name, None where there is none."""
        row = await self._read(lambda connection: connection.execute(select(RESOURCES).where(_is(kind, name))).first())
        return _resource(row) if row else None

    async def list(self, kind: Kind, query: ListQuery) -> Page:
        """Give one page. Rows with equal sort values come in the order in which they were inserted (or its reverse)."""
        statement = _page(kind, query)
        rows = await self._read(lambda connection: connection.execute(statement).all())
        resources = [_resource(row) for row in rows[: query.limit]]
        if len(rows) <= query.limit:
            return Page(resources)
        last = rows[query.limit - 1]
        value = last._mapping[_SORT_COLUMN[query.sort_by]]
        return Page(resources, (_seconds(value) if query.sort_by == "CreationTime" else value, last.id))

    async def set_status(self, resource: Resource, status: Mapping[str, object], *, touch: bool = True) -> bool:
        """Write the status if the stored generation is still `resource.generation`. `touch`: LastModifiedTime moves."""
        statement = update(RESOURCES).where(_unchanged(resource)).values(_status_columns(resource.kind, status))

        def work(connection: Connection) -> bool:
            touched = statement.values(modified_at=self._now()) if touch else statement
            return connection.execute(touched).rowcount == 1

        return await self._write(work)

    async def replace(self, resource: Resource, spec: Mapping[str, object]) -> Resource | None:
        """Write the spec and raise the generation, if it still is `resource.generation`; else None. Sets one time."""
        statement = update(RESOURCES).where(_unchanged(resource)).returning(RESOURCES)

        def work(connection: Connection) -> Row[Any] | None:
            values = {"spec": spec, "generation": resource.generation + 1, "modified_at": self._now()}
            return connection.execute(statement.values(values)).first()

        row = await self._write(work)
        return _resource(row) if row else None

    async def mark_deleting(self, kind: Kind, name: str, status: Mapping[str, object]) -> Resource | None:
        """Set `deleting`, write the status, raise the generation; None where there is no such resource."""

        def work(connection: Connection) -> Row[Any] | None:
            return connection.execute(
                update(RESOURCES)
                .where(_is(kind, name))
                .values(
                    deleting=True,
                    generation=RESOURCES.c.generation + 1,
                    modified_at=self._now(),
                    **_status_columns(kind.name, status),
                )
                .returning(RESOURCES)
            ).first()

        row = await self._write(work)
        return _resource(row) if row else None

    async def remove(self, kind: Kind, name: str) -> bool:
        """Delete the row and its tags; False where there was none."""
        statement = delete(RESOURCES).where(_is(kind, name))
        return await self._write(lambda connection: connection.execute(statement).rowcount == 1)

    # Tags

    async def exists(self, arn: str) -> bool:
        """Tell whether a resource has this ARN, in whatever case it is written."""
        return await self._read(lambda connection: _find(connection, arn)) is not None

    async def tags(self, arn: str) -> Mapping[str, str]:
        """Give the tags in the order in which they were added; none for an unknown ARN."""
        return await self._read(lambda connection: _tags(connection, _find(connection, arn)))

    async def put_tags(self, arn: str, tags: Mapping[str, str], limit: int) -> Mapping[str, str] | None:
        """Add or overwrite and give all; None, and nothing written, where there would be more than `limit`.

        An unknown ARN gets no tags and has none to give.
        """

        def work(connection: Connection) -> Mapping[str, str] | None:
            resource = _find(connection, arn)
            if resource is None:
                return {}
            if len({**_tags(connection, resource), **tags}) > limit:
                return None
            _write_tags(connection, resource, tags)
            return _tags(connection, resource)

        return await self._write(work)

    async def remove_tags(self, arn: str, keys: Sequence[str]) -> None:
        """Remove the tags of these keys; keys that are not there are fine."""

        def work(connection: Connection) -> None:
            resource = _find(connection, arn)
            connection.execute(delete(TAGS).where(TAGS.c.resource == resource, TAGS.c.key.in_(keys)))

        await self._write(work)

    async def stored_arn(self, arn: str) -> str | None:
        """Give an ARN as it is stored, in whatever case it is asked for; None where no resource has it."""
        return await self._read(
            lambda connection: connection.execute(
                select(RESOURCES.c.arn).where(RESOURCES.c.id == _find(connection, arn))
            ).scalar()
        )

    # Identities

    async def add_user(self, user: User) -> bool:
        """Store a user with its key; False where the name is taken."""
        return await self._write(lambda connection: identities.add_user(connection, user))

    async def add_role(self, role: Role) -> bool:
        """Store a role; False where the name is taken."""
        return await self._write(lambda connection: identities.add_role(connection, role))

    async def remove_user(self, name: str) -> bool:
        """Delete a user and its key; False where there was none."""
        return await self._write(lambda connection: identities.remove_user(connection, name))

    async def remove_role(self, name: str) -> bool:
        """Delete a role; False where there was none."""
        return await self._write(lambda connection: identities.remove_role(connection, name))

    async def users(self) -> Sequence[User]:
        """Give all users by name."""
        return await self._read(identities.users)

    async def roles(self) -> Sequence[Role]:
        """Give all roles by name."""
        return await self._read(identities.roles)

    async def has_had_roles(self) -> bool:
        """Tell whether there is a role or was one."""
        return await self._read(identities.has_had_roles)

    def _now(self) -> int:
        # Whole milliseconds, because answers show no more: a filter that is given a time out of an answer then means
        # exactly that time, and neither misses the resource nor finds one too many.
        return int(self._clock() * 1000) * 1000

    # Threads

    async def _read(self, work: Callable[[Connection], _Result]) -> _Result:
        return await self._run(self._readers, self._reading.begin, work)

    async def _write(self, work: Callable[[Connection], _Result]) -> _Result:
        return await self._run(self._writer, self._writing.begin, work)

    async def _run(
        self,
        pool: ThreadPoolExecutor,
        begin: Callable[[], AbstractContextManager[Connection]],
        work: Callable[[Connection], _Result],
    ) -> _Result:
        def transaction() -> _Result:
            with begin() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(pool, transaction)


# The file


def _engine(path: Path) -> Engine:
    engine = create_engine(URL.create("sqlite", database=str(path)), pool_size=_READERS + 1, max_overflow=0)

    @event.listens_for(engine, "connect")
    def configure(connection: SqliteConnection, _: object) -> None:
        # The driver must not begin transactions on its own: it would begin them as readers.
        connection.isolation_level = None
        # The time-out comes first: switching to WAL already needs the lock.
        for setting in (
            f"busy_timeout = {_BUSY_SECONDS * 1000}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
        ):
            connection.execute(f"PRAGMA {setting}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer that began as a reader fails at once, whatever the time-out, when another process wrote in between.
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


_alembic = threading.Lock()
HEAD = "0006"
"""The newest revision of the schema."""


def _migrate(connection: Connection) -> None:
    if _revision(connection) == HEAD:
        return
    # Imported here: Alembic takes longer to load than everything else that a start does.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "clary.store:migrations")
    config.attributes["connection"] = connection
    try:
        # Alembic hands the configuration to its scripts through a global.
        with _alembic:
            command.upgrade(config, "head")
    except CommandError as error:
        raise Fatal(f"The state file was written by a newer Clary ({error}).") from error


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


# Rows


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _seconds(micros: int) -> float:
    return micros / 1_000_000


def _key(kind: Kind, name: str) -> str:
    return name.lower() if kind.case_insensitive else name


def _is(kind: Kind, name: str) -> Any:
    return (RESOURCES.c.kind == kind.name) & (RESOURCES.c.key == _key(kind, name))


def _unchanged(resource: Resource) -> Any:
    return (
        _is(_KINDS[resource.kind], resource.name)
        & (RESOURCES.c.generation == resource.generation)
        # A namesake made after this one was deleted also starts at generation 1.
        & (RESOURCES.c.created_at == _micros(resource.created_at))
    )


def _status_columns(kind: str, status: Mapping[str, object]) -> dict[str, object]:
    member = _KINDS[kind].status_member
    return {"status": status, "status_text": status.get(member, "") if member else ""}


def _resource(row: Row[Any]) -> Resource:
    return Resource(
        kind=row.kind,
        name=row.name,
        arn=row.arn,
        spec=row.spec,
        status=row.status,
        generation=row.generation,
        created_at=_seconds(row.created_at),
        modified_at=_seconds(row.modified_at),
        deleting=row.deleting,
    )


def _page(kind: Kind, query: ListQuery) -> Select[Any]:
    c = RESOURCES.c
    sort = _SORT_COLUMN[query.sort_by]
    conditions = [c.kind == kind.name]
    if query.name_contains is not None:
        # Not LIKE, which disregards case on SQLite alone. What follows a slash (a version's number) is no name.
        shown = func.substr(c.name, 1, func.instr(c.name.concat("/"), "/") - 1)
        conditions.append(func.instr(shown, query.name_contains) > 0)
    if query.created_before is not None:
        conditions.append(c.created_at < _micros(query.created_before))
    if query.created_after is not None:
        conditions.append(c.created_at >= _micros(query.created_after))
    if query.modified_before is not None:
        conditions.append(c.modified_at < _micros(query.modified_before))
    if query.modified_after is not None:
        conditions.append(c.modified_at >= _micros(query.modified_after))
    if query.status_equals is not None:
        conditions.append(c.status_text == query.status_equals)
    conditions += (c.spec[member].as_string() == value for member, value in query.members)
    if query.after is not None:
        value, id = query.after
        boundary = tuple_(_micros(float(value)) if query.sort_by == "CreationTime" else value, id)
        place = tuple_(sort, c.id)
        conditions.append(place < boundary if query.descending else place > boundary)
    order = (sort.desc(), c.id.desc()) if query.descending else (sort, c.id)
    # One row more than asked for tells whether there is another page.
    return select(RESOURCES).where(*conditions).order_by(*order).limit(query.limit + 1)


def _find(connection: Connection, arn: str) -> int | None:
    """Give the id of the resource with this ARN: the exact one if there is, else one that differs in case only."""
    return connection.execute(
        select(RESOURCES.c.id)
        .where(func.lower(RESOURCES.c.arn) == arn.lower())
        .order_by((RESOURCES.c.arn == arn).desc())
        .limit(1)
    ).scalar()


def _tags(connection: Connection, resource: int | None) -> dict[str, str]:
    rows = connection.execute(select(TAGS.c.key, TAGS.c.value).where(TAGS.c.resource == resource).order_by(TAGS.c.id))
    return {row.key: row.value for row in rows}


def _write_tags(connection: Connection, resource: int, tags: Mapping[str, str]) -> None:
    if not tags:
        return
    statement = upsert(TAGS).values([{"resource": resource, "key": key, "value": tags[key]} for key in tags])
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[TAGS.c.resource, TAGS.c.key], set_={"value": statement.excluded.value}
        )
    )
