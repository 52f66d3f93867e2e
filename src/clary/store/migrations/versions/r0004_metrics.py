"""Metrics, and which deliveries of them have come."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "metrics",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("dimensions", sa.Text, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.UniqueConstraint("namespace", "name", "dimensions", "unit", name="metrics_key"),
    )
    op.create_table(
        "datapoints",
        sa.Column("metric", sa.Integer, sa.ForeignKey("metrics.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("start", sa.Integer, primary_key=True),
        sa.Column("count", sa.Float, nullable=False),
        sa.Column("sum", sa.Float, nullable=False),
        sa.Column("minimum", sa.Float, nullable=False),
        sa.Column("maximum", sa.Float, nullable=False),
        sa.Column("histogram", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("datapoints_by_start", "datapoints", ["start"])
    op.create_table(
        "deliveries",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("at", sa.Integer, nullable=False),
    )
