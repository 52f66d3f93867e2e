"""Paths of roles, and that there have been roles at all."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("roles", sa.Column("path", sa.Text, nullable=False, server_default="/"))
    op.create_table("milestones", sa.Column("name", sa.Text, primary_key=True))
    op.execute("INSERT INTO milestones SELECT 'roles' WHERE EXISTS (SELECT 1 FROM roles)")
