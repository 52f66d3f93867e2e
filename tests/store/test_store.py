"""The store on real files: conflicts are judged by the index, pages add up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from clary.core.identities import Role, User
from clary.core.ports import ListQuery
from clary.core.resources import ENDPOINT, MODEL, Resource
from clary.store.store import Store
from tests.store.conftest import PARTITION, Clock, resource
from tests.stores import new_store

CREATING = {"EndpointStatus": "Creating"}


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
