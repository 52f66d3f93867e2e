"""Tags of users and roles; versions of model packages under names that sort as numbers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for table in ("users", "roles"):
        op.add_column(table, sa.Column("tags", sa.JSON, nullable=False, server_default="{}"))
    op.execute(
        "UPDATE resources SET name = substr(name, 1, instr(name, '/')) || "
        "printf('%09d', substr(name, instr(name, '/') + 1)) WHERE kind = 'ModelPackage' AND name LIKE '%/%'"
    )
    op.execute("UPDATE resources SET \"key\" = name WHERE kind = 'ModelPackage'")
