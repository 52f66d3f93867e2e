"""The store's file: how it comes to be and grows older, and what is in it whoever else writes or is killed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from clary.core.identities import User
from clary.core.ports import ListQuery
from clary.core.resources import MODEL, MODEL_PACKAGE
from clary.errors import Fatal
from clary.store.store import HEAD, Store
from clary.store.tables import METADATA
from tests.store.conftest import PARTITION, resource


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
