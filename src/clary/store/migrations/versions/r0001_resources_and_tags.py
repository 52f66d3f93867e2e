"""Resources and their tags."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "resources",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("arn", sa.Text, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("status", sa.JSON, nullable=False),
        sa.Column("status_text", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("modified_at", sa.BigInteger, nullable=False),
        sa.Column("deleting", sa.Boolean, nullable=False),
        sa.UniqueConstraint("kind", "key", name="resources_key"),
    )
    op.create_index("resources_by_creation", "resources", ["kind", "created_at", "id"])
    op.create_index("resources_by_name", "resources", ["kind", "name", "id"])
    op.create_index("resources_by_status", "resources", ["kind", "status_text", "id"])
    op.create_index("resources_by_arn", "resources", [sa.text("lower(arn)")])
    op.create_table(
        "tags",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("resource", sa.Integer, sa.ForeignKey("resources.id", ondelete="CASCADE"), nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.UniqueConstraint("resource", "key", name="tags_key"),
    )
