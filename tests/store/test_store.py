"""The store on real files: what was acknowledged is there, conflicts are judged by the index, pages add up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, event

from clary.core.identities import Role, User
from clary.core.ports import ListQuery
from clary.core.resources import ENDPOINT, MODEL, MODEL_PACKAGE, Kind, Partition, Resource
from clary.errors import Fatal
from clary.store.store import HEAD, Store
from clary.store.tables import METADATA
from tests.stores import new_store

PARTITION = Partition("123456789012", "us-east-1")
CREATING = {"EndpointStatus": "Creating"}


class Clock:
    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def resource(kind: Kind, name: str, **fields: Any) -> Resource:
    return Resource(kind.name, name, PARTITION.arn(kind, name), fields.pop("spec", {}), **fields)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    store = await new_store(tmp_path / "state", clock)
    yield store
    await store.close()


# Resources


async def test_insert_sets_both_times_and_gives_what_get_gives(store: Store, clock: Clock) -> None:
    clock.now = 1_700_000_000.123
    inserted = await store.insert(resource(MODEL, "m", spec={"ModelName": "m"}), {})
    assert inserted is not None
    assert inserted.created_at == inserted.modified_at == 1_700_000_000.123
    assert inserted == await store.get(MODEL, "m")


async def test_times_are_cut_to_the_milliseconds_that_answers_show(store: Store, clock: Clock) -> None:
    clock.now = 1_700_000_000.123_987
    inserted = await store.insert(resource(MODEL, "m"), {})
    assert inserted is not None and inserted.created_at == 1_700_000_000.123


async def test_a_name_is_free_in_another_kind(store: Store) -> None:
    assert await store.insert(resource(MODEL, "same"), {})
    assert await store.insert(resource(ENDPOINT, "same", status=CREATING), {})
    assert await store.get(MODEL, "other") is None


async def test_endpoint_names_collide_and_are_found_in_any_case_but_keep_theirs(store: Store) -> None:
    assert await store.insert(resource(ENDPOINT, "Demo", status=CREATING), {})
    assert await store.insert(resource(ENDPOINT, "dEMO", status=CREATING), {}) is None
    found = await store.get(ENDPOINT, "DEMO")
    assert found is not None and found.name == "Demo"


async def test_model_names_that_differ_in_case_are_different(store: Store) -> None:
    assert await store.insert(resource(MODEL, "Demo"), {})
    assert await store.insert(resource(MODEL, "demo"), {})


async def test_of_many_creates_of_one_name_one_wins_and_only_its_tags_are_kept(store: Store) -> None:
    results = await asyncio.gather(
        *(store.insert(resource(MODEL, "m", spec={"n": n}), {"n": str(n)}) for n in range(20))
    )
    winners = [result for result in results if result is not None]
    assert len(winners) == 1
    assert await store.tags(winners[0].arn) == {"n": str(winners[0].spec["n"])}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(), JSON_VALUES, max_size=4), st.dictionaries(st.text(), JSON_VALUES, max_size=4))
async def test_spec_and_status_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, spec: dict[str, Any], status: dict[str, Any]
) -> None:
    store = await new_store(tmp_path_factory.mktemp("json"))
    try:
        assert await store.insert(resource(MODEL, "m", spec=spec, status=status), {})
        found = await store.get(MODEL, "m")
    finally:
        await store.close()
    assert found is not None
    # As text, so that 1 and 1.0, and orders of keys, are told apart.
    assert json.dumps([found.spec, found.status]) == json.dumps([spec, status])


async def test_set_status_moves_last_modified_time_only_when_touching(store: Store, clock: Clock) -> None:
    endpoint = await store.insert(resource(ENDPOINT, "e", status=CREATING), {})
    assert endpoint is not None
    clock.now += 5
    assert await store.set_status(endpoint, {"EndpointStatus": "Creating", "_p": 1}, touch=False)
    unmoved = await store.get(ENDPOINT, "e")
    assert unmoved is not None and unmoved.modified_at == endpoint.modified_at
    assert unmoved.status == {"EndpointStatus": "Creating", "_p": 1}
    assert await store.set_status(endpoint, {"EndpointStatus": "InService"})
    moved = await store.get(ENDPOINT, "e")
    assert moved is not None and moved.modified_at == endpoint.modified_at + 5
    assert moved.generation == endpoint.generation


async def test_deleting_raises_the_generation_so_that_a_late_status_is_refused(store: Store) -> None:
    seen = await store.insert(resource(ENDPOINT, "e", status=CREATING), {})
    assert seen is not None
    deleting = await store.mark_deleting(ENDPOINT, "E", {"EndpointStatus": "Deleting"})
    assert deleting is not None and deleting.deleting and deleting.generation == seen.generation + 1
    assert not await store.set_status(seen, {"EndpointStatus": "InService"})
    assert (await store.get(ENDPOINT, "e")) == deleting
    assert await store.set_status(deleting, {"EndpointStatus": "Deleting", "_left": 1})
    assert await store.mark_deleting(ENDPOINT, "other", {}) is None


async def test_a_late_status_does_not_reach_a_namesake(store: Store, clock: Clock) -> None:
    old = await store.insert(resource(ENDPOINT, "e", status=CREATING), {})
    assert old is not None
    assert await store.remove(ENDPOINT, "e")
    clock.now += 0.001
    new = await store.insert(resource(ENDPOINT, "e", status=CREATING), {})
    assert not await store.set_status(old, {"EndpointStatus": "Failed"})
    assert await store.get(ENDPOINT, "e") == new


async def test_replace_writes_the_spec_raises_the_generation_and_keeps_the_status(store: Store, clock: Clock) -> None:
    first = await store.insert(resource(ENDPOINT, "e", spec={"a": 1}, status=CREATING), {})
    assert first is not None
    clock.now += 1
    second = await store.replace(first, {"b": 2})
    assert second is not None and second == await store.get(ENDPOINT, "e")
    assert (second.spec, second.status, second.generation) == ({"b": 2}, CREATING, first.generation + 1)
    assert (second.created_at, second.modified_at) == (first.created_at, clock.now)


async def test_of_two_who_replace_what_they_both_read_one_wins(store: Store) -> None:
    read = await store.insert(resource(MODEL, "m"), {})
    assert read is not None
    results = await asyncio.gather(*(store.replace(read, {"by": n}) for n in range(5)))
    (winner,) = (result for result in results if result is not None)
    assert await store.get(MODEL, "m") == winner


async def test_replace_does_not_reach_a_namesake_or_nobody(store: Store, clock: Clock) -> None:
    old = await store.insert(resource(MODEL, "m"), {})
    assert old is not None
    await store.remove(MODEL, "m")
    assert await store.replace(old, {"by": "old"}) is None
    clock.now += 1
    await store.insert(resource(MODEL, "m"), {})
    assert await store.replace(old, {"by": "old"}) is None


async def test_lists_filter_by_members_of_the_spec(store: Store) -> None:
    for name, spec in (("a", {"group": "g", "type": "x"}), ("b", {"group": "g"}), ("c", {"type": "x"}), ("d", {})):
        await store.insert(resource(MODEL, name, spec=spec), {})

    async def names(*members: tuple[str, str | None]) -> list[str]:
        page = await store.list(MODEL, ListQuery(sort_by="Name", descending=False, members=members))
        return [each.name for each in page.resources]

    assert await names(("group", "g")) == ["a", "b"]
    assert await names(("group", "g"), ("type", "x")) == ["a"]
    assert await names(("group", None)) == ["c", "d"]
    assert await names(("group", "G")) == []


async def test_remove_takes_the_tags_along_and_tells_whether_there_was_a_row(store: Store) -> None:
    assert await store.insert(resource(MODEL, "m"), {"k": "v"})
    assert await store.remove(MODEL, "m")
    assert not await store.remove(MODEL, "m")
    assert await store.insert(resource(MODEL, "m"), {})
    assert await store.tags(PARTITION.arn(MODEL, "m")) == {}


# Tags


async def test_tags_keep_their_order_and_are_overwritten_in_place(store: Store) -> None:
    arn = PARTITION.arn(MODEL, "m")
    await store.insert(resource(MODEL, "m"), {"z": "1", "a": "2"})
    assert await store.put_tags(arn, {"z": "3", "m": "4"}, 50) == {"z": "3", "a": "2", "m": "4"}
    assert list(await store.tags(arn)) == ["z", "a", "m"]
    await store.remove_tags(arn, ["a", "not there"])
    assert await store.tags(arn) == {"z": "3", "m": "4"}


async def test_more_tags_than_the_limit_write_nothing(store: Store) -> None:
    arn = PARTITION.arn(MODEL, "m")
    await store.insert(resource(MODEL, "m"), {"a": "1", "b": "2"})
    assert await store.put_tags(arn, {"a": "9", "c": "3"}, 2) is None
    assert await store.tags(arn) == {"a": "1", "b": "2"}
    assert await store.put_tags(arn, {"a": "9"}, 2) == {"a": "9", "b": "2"}


async def test_racing_writers_of_tags_do_not_pass_the_limit(store: Store) -> None:
    arn = PARTITION.arn(MODEL, "m")
    await store.insert(resource(MODEL, "m"), {})
    await asyncio.gather(*(store.put_tags(arn, {f"k{n}": ""}, 10) for n in range(20)))
    assert len(await store.tags(arn)) == 10


async def test_arns_are_found_in_any_case_and_exactly_where_two_differ_in_case_only(store: Store) -> None:
    await store.insert(resource(MODEL, "Demo"), {"is": "upper"})
    assert await store.exists(PARTITION.arn(MODEL, "dEmO"))
    assert not await store.exists(PARTITION.arn(MODEL, "Dem"))
    assert await store.tags(PARTITION.arn(MODEL, "demo")) == {"is": "upper"}
    await store.insert(resource(MODEL, "demo"), {"is": "lower"})
    assert await store.tags(PARTITION.arn(MODEL, "demo")) == {"is": "lower"}
    assert await store.tags(PARTITION.arn(MODEL, "Demo")) == {"is": "upper"}


# Pages

NAMES = st.lists(st.text("abAB-9", min_size=1, max_size=4), unique_by=str.lower, min_size=6, max_size=20)
STATUSES = ("Creating", "InService", "Failed")
MOMENTS = st.integers(0, 4).map(float)
FILTERS: dict[str, st.SearchStrategy[Any]] = {
    "name_contains": st.text("abA%_", max_size=1),
    "created_before": MOMENTS,
    "created_after": MOMENTS,
    "modified_before": MOMENTS,
    "modified_after": MOMENTS,
    "status_equals": st.sampled_from(STATUSES),
}


@st.composite
def queries(draw: st.DrawFn) -> ListQuery:
    # Two filters at most: with more there is seldom a second page.
    chosen: set[str] = draw(st.sets(st.sampled_from(sorted(FILTERS)), max_size=2))
    filters: dict[str, Any] = {name: draw(FILTERS[name]) for name in sorted(chosen)}
    return ListQuery(
        sort_by=draw(st.sampled_from(("Name", "CreationTime", "Status"))),
        descending=draw(st.booleans()),
        limit=draw(st.integers(1, 4)),
        **filters,
    )


def expected(rows: list[Resource], query: ListQuery) -> list[str]:
    """The list in one piece, from plain Python. `rows` come in the order of their insertion."""

    def wanted(row: Resource) -> bool:
        return (
            (query.name_contains is None or query.name_contains in row.name)
            and (query.created_before is None or row.created_at < query.created_before)
            and (query.created_after is None or row.created_at >= query.created_after)
            and (query.modified_before is None or row.modified_at < query.modified_before)
            and (query.modified_after is None or row.modified_at >= query.modified_after)
            and (query.status_equals is None or row.status["EndpointStatus"] == query.status_equals)
        )

    def place(numbered: tuple[int, Resource]) -> tuple[Any, int]:
        number, row = numbered
        values = {"Name": row.name, "CreationTime": row.created_at, "Status": row.status["EndpointStatus"]}
        return values[query.sort_by], number

    kept = sorted(((n, row) for n, row in enumerate(rows) if wanted(row)), key=place, reverse=query.descending)
    return [row.name for _, row in kept]


@settings(max_examples=60, deadline=None)
@given(st.data(), NAMES, st.lists(queries(), min_size=2, max_size=6))
async def test_pages_put_together_are_the_whole_list_sorted_and_filtered(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, names: list[str], asked: list[ListQuery]
) -> None:
    clock = Clock()
    store = await new_store(tmp_path_factory.mktemp("pages"), clock)
    try:
        rows: list[Resource] = []
        for name in names:
            clock.now = float(data.draw(st.integers(0, 3)))  # few values: many ties
            status = {"EndpointStatus": data.draw(st.sampled_from(STATUSES))}
            row = await store.insert(resource(ENDPOINT, name, status=status), {})
            assert row is not None
            rows.append(row)
        await store.insert(resource(MODEL, "another-kind"), {})
        for query in asked:
            found: list[str] = []
            page = await store.list(ENDPOINT, query)
            while True:
                assert len(page.resources) <= query.limit
                found += [row.name for row in page.resources]
                assert len(found) <= len(rows), "pages overlap"
                if page.next is None:
                    break
                assert page.resources, "a page with a successor is not empty"
                page = await store.list(ENDPOINT, ListQuery(**{**_fields(query), "after": page.next}))
            assert found == expected(rows, query)
    finally:
        await store.close()


def _fields(query: ListQuery) -> dict[str, Any]:
    return {name: getattr(query, name) for name in ListQuery.__slots__}


@pytest.mark.parametrize("sort_by", ["CreationTime", "Name", "Status"])
@pytest.mark.parametrize("descending", [True, False])
async def test_a_page_walks_an_index_and_sorts_nothing(
    store: Store, tmp_path: Path, sort_by: Any, descending: bool
) -> None:
    statements: list[tuple[str, Any]] = []

    def note(_c: object, _k: object, statement: str, parameters: Any, _x: object, _m: object) -> None:
        if statement.startswith("SELECT"):
            statements.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        position = (1.0 if sort_by == "CreationTime" else "x", 7)
        await store.list(ENDPOINT, ListQuery(sort_by=sort_by, descending=descending, after=position))
        await store.get(ENDPOINT, "e")
        await store.exists("arn")
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len(statements) == 3
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "clary.db")) as connection:
        for statement, parameters in statements:
            plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))
            assert "SEARCH resources USING" in plan, plan
            if "LIMIT" in statement and "lower" not in statement:
                assert "TEMP B-TREE" not in plan, plan


# The file


async def test_the_folder_is_made_for_its_owner_alone_and_a_second_opening_finds_everything(tmp_path: Path) -> None:
    path = tmp_path / "a" / "state" / "clary.db"
    store = await Store.open(path)
    await store.insert(resource(MODEL, "m", spec={"x": 1}), {"k": "v"})
    await store.close()
    assert path.parent.stat().st_mode & 0o077 == 0
    again = await Store.open(path)
    found = await again.get(MODEL, "m")
    assert found is not None and found.spec == {"x": 1}
    assert await again.tags(found.arn) == {"k": "v"}
    await again.close()


def schema(path: Path) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%' AND sql NOT NULL")
        return {name: " ".join(sql.split()) for name, sql in rows}


async def test_the_migrations_make_the_tables_that_the_code_uses(store: Store, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'direct.db'}")
    METADATA.create_all(engine)
    engine.dispose()
    migrated = schema(tmp_path / "state" / "clary.db")
    assert len(migrated) == 19
    assert migrated == schema(tmp_path / "direct.db")


async def test_a_store_of_the_first_revision_keeps_its_resources_and_gets_identities(tmp_path: Path) -> None:
    path = tmp_path / "clary.db"
    config = Config()
    config.set_main_option("script_location", "clary.store:migrations")
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO resources (id, kind, name, key, arn, spec, status, status_text, generation, created_at, "
            "modified_at, deleting) VALUES (1, 'Model', 'm', 'm', 'arn:m', '{\"x\": 1}', '{}', '', 1, 0, 0, 0)"
        )
        connection.exec_driver_sql("INSERT INTO tags (resource, key, value) VALUES (1, 'k', 'v')")
        connection.exec_driver_sql(
            "INSERT INTO resources SELECT 2, 'ModelPackage', 'g/7', 'g/7', 'arn:p', '{}', '{}', '', 1, 0, 0, 0"
        )
    engine.dispose()
    store = await Store.open(path)
    found = await store.get(MODEL, "m")
    assert found is not None and found.spec == {"x": 1}
    assert await store.tags("arn:m") == {"k": "v"}
    assert (await store.users(), await store.roles()) == ([], [])
    assert await store.add_user(User("u", "AIDAU", "AKIAU", "secret"))
    assert await store.get(MODEL_PACKAGE, "g/000000007") is not None
    await store.close()


async def test_users_and_roles_are_kept_whole_and_names_are_unique(store: Store) -> None:
    document = {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
    user = User("u", "AIDAU", "AKIAU", "secret", [document], 1_700_000_000.5)
    role = Role("r", "AROAR", [document], None, 1_700_000_000.5)
    trusting = Role("t", "AROAT", [], {"Statement": []}, 1.0)
    assert [await store.add_user(user), await store.add_role(trusting), await store.add_role(role)] == [True] * 3
    assert (await store.users(), await store.roles()) == ([user], [role, trusting])
    assert not await store.add_user(User("u", "AIDAV", "AKIAV", "other"))
    assert not await store.add_user(User("v", "AIDAV", "AKIAU", "other"))
    assert not await store.add_role(Role("r", "AROAS"))
    assert await store.users() == [user]
    assert [await store.remove_user("u"), await store.remove_user("u")] == [True, False]
    assert [await store.remove_role("r"), await store.remove_role("r")] == [True, False]
    assert (await store.users(), await store.roles()) == ([], [trusting])


async def test_an_arn_is_found_in_any_case_and_given_as_it_is_stored(store: Store) -> None:
    arn = PARTITION.arn(ENDPOINT, "Fish")
    await store.insert(resource(ENDPOINT, "Fish", status=CREATING), {})
    assert [await store.stored_arn(arn.upper()), await store.stored_arn(arn)] == [arn, arn]
    assert await store.stored_arn(arn + "x") is None


async def test_commits_are_synced_and_readers_do_not_block(store: Store) -> None:
    with store._writing.connect() as connection:
        wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
        assert {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in wanted} == wanted


async def test_a_file_that_is_no_database_fails_to_open_and_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "clary.db"
    path.write_bytes(b"not a database, by far" * 100)
    with pytest.raises(Exception, match="not a database"):
        await Store.open(path)


async def test_a_file_of_a_newer_clary_is_refused_and_left_alone(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "state" / "clary.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(Fatal, match="newer Clary"):
        await Store.open(path)


WRITER = """
import asyncio, sys
from pathlib import Path
from clary.core.resources import MODEL, Partition, Resource
from clary.store.store import Store
from tests.stores import new_store

async def main(path, prefix, count):
    store = await Store.open(path)
    for n in range(count):
        name = f"{prefix}-{n}"
        arn = Partition("123456789012", "us-east-1").arn(MODEL, name)
        assert await store.insert(Resource("Model", name, arn, {"n": n}), {"n": str(n)})
        print(name, flush=True)
    await store.close()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
"""


def writer(path: Path, prefix: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), prefix, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "clary.db"
    for life in ("a", "b"):
        with writer(path, life, 1_000_000) as process:
            assert process.stdout is not None
            acknowledged = [process.stdout.readline().strip() for _ in range(50)]
            process.send_signal(signal.SIGKILL)
            acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
        store = await Store.open(path)
        for name in acknowledged:
            found = await store.get(MODEL, name)
            assert found is not None, name
            assert await store.tags(found.arn) == {"n": str(found.spec["n"])}
        await store.close()


async def test_processes_that_open_the_same_new_file_at_once_all_write(tmp_path: Path) -> None:
    path = tmp_path / "clary.db"
    processes = [writer(path, prefix, 20) for prefix in "abc"]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    store = await Store.open(path)
    page = await store.list(MODEL, ListQuery(limit=1000))
    assert len(page.resources) == 60
    await store.close()


async def test_a_predecessor_that_still_writes_and_its_successor_see_each_other(store: Store, tmp_path: Path) -> None:
    successor = await Store.open(tmp_path / "state" / "clary.db")
    both = (store, successor)
    results = await asyncio.gather(*(both[n % 2].insert(resource(MODEL, f"m{n // 2}"), {}) for n in range(40)))
    assert sum(result is not None for result in results) == 20
    for each in both:
        assert len((await each.list(MODEL, ListQuery(limit=100))).resources) == 20
    # Reads before it writes: begun as a reader, it would fail when the other wrote in between.
    arn = PARTITION.arn(MODEL, "m0")
    await asyncio.gather(*(both[n % 2].put_tags(arn, {f"k{n}": ""}, 30) for n in range(40)))
    assert len(await store.tags(arn)) == 30
    await successor.close()


def test_the_newest_revision_is_the_one_that_a_start_compares_with() -> None:
    config = Config()
    config.set_main_option("script_location", "clary.store:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD
