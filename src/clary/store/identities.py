"""The statements about users and roles. `Store` runs them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from clary.core.identities import Role, User
from clary.store.tables import MILESTONES, ROLES, USERS

_MICROS = 1_000_000
_ROLES = "roles"


def add_user(connection: Connection, user: User) -> bool:
    values = {
        "name": user.name,
        "id": user.id,
        "access_key_id": user.access_key_id,
        "secret_access_key": user.secret_access_key,
        "policies": list(user.policies),
        "created_at": round(user.created_at * _MICROS),
        "tags": dict(user.tags),
    }
    try:
        connection.execute(insert(USERS).values(values))
    except IntegrityError:
        return False
    return True


def add_role(connection: Connection, role: Role) -> bool:
    values = {
        "name": role.name,
        "id": role.id,
        "policies": list(role.policies),
        "trust": role.trust,
        "created_at": round(role.created_at * _MICROS),
        "tags": dict(role.tags),
        "path": role.path,
    }
    try:
        connection.execute(insert(MILESTONES).prefix_with("OR IGNORE").values(name=_ROLES))
        connection.execute(insert(ROLES).values(values))
    except IntegrityError:
        return False
    return True


def remove_user(connection: Connection, name: str) -> bool:
    return connection.execute(delete(USERS).where(USERS.c.name == name)).rowcount == 1


def remove_role(connection: Connection, name: str) -> bool:
    return connection.execute(delete(ROLES).where(ROLES.c.name == name)).rowcount == 1


def users(connection: Connection) -> Sequence[User]:
    rows = connection.execute(select(USERS).order_by(USERS.c.name))
    return [
        User(r.name, r.id, r.access_key_id, r.secret_access_key, r.policies, r.created_at / _MICROS, r.tags)
        for r in rows
    ]


def roles(connection: Connection) -> Sequence[Role]:
    rows = connection.execute(select(ROLES).order_by(ROLES.c.name))
    return [Role(r.name, r.id, r.policies, r.trust, r.created_at / _MICROS, r.tags, r.path) for r in rows]


def has_had_roles(connection: Connection) -> bool:
    return connection.execute(select(MILESTONES).where(MILESTONES.c.name == _ROLES)).first() is not None
