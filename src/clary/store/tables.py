"""The tables, and the indexes that make paging as fast at ten thousand rows as at ten."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
)

METADATA = MetaData()

RESOURCES = Table(
    "resources",
    METADATA,
    # Breaks ties between equal sort values, so that a page boundary is one exact row.
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    # What must be unique: the name, lower-cased where the kind disregards case.
    Column("key", Text, nullable=False),
    Column("arn", Text, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("status", JSON, nullable=False),
    # The kind's status member out of `status`, where it can be indexed; empty for kinds without one.
    Column("status_text", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    # Microseconds since the epoch: exact to compare, unlike floats.
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Column("deleting", Boolean, nullable=False),
    UniqueConstraint("kind", "key", name="resources_key"),
)

# One index for each SortBy, each ending in the tie-breaker: a page is a short walk along one of them, without sorting.
Index("resources_by_creation", RESOURCES.c.kind, RESOURCES.c.created_at, RESOURCES.c.id)
Index("resources_by_name", RESOURCES.c.kind, RESOURCES.c.name, RESOURCES.c.id)
Index("resources_by_status", RESOURCES.c.kind, RESOURCES.c.status_text, RESOURCES.c.id)
# Tags name their resource by ARN, in any case.
Index("resources_by_arn", func.lower(RESOURCES.c.arn))

TAGS = Table(
    "tags",
    METADATA,
    # Also the order in which tags are listed: overwriting a value does not move its tag.
    Column("id", Integer, primary_key=True),
    Column("resource", ForeignKey(RESOURCES.c.id, ondelete="CASCADE"), nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    UniqueConstraint("resource", "key", name="tags_key"),
)

# Secrets are kept as they are, because signatures are verified with them: the file's folder is for its owner alone.
USERS = Table(
    "users",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("access_key_id", Text, nullable=False, unique=True),
    Column("secret_access_key", Text, nullable=False),
    Column("policies", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("tags", JSON, nullable=False, server_default="{}"),
)

ROLES = Table(
    "roles",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("policies", JSON, nullable=False),
    Column("trust", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("tags", JSON, nullable=False, server_default="{}"),
    Column("path", Text, nullable=False, server_default="/"),
)

# What has happened and stays so, whatever is deleted later: `roles`, there has been one.
MILESTONES = Table("milestones", METADATA, Column("name", Text, primary_key=True))

METRICS = Table(
    "metrics",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    # JSON, [[name, value], ...] in the order of the names: one text for one set of dimensions.
    Column("dimensions", Text, nullable=False),
    Column("unit", Text, nullable=False),
    UniqueConstraint("namespace", "name", "dimensions", "unit", name="metrics_key"),
)

DATAPOINTS = Table(
    "datapoints",
    METADATA,
    Column("metric", ForeignKey(METRICS.c.id, ondelete="CASCADE"), primary_key=True),
    # Seconds since the epoch.
    Column("start", Integer, primary_key=True),
    Column("count", Float, nullable=False),
    Column("sum", Float, nullable=False),
    Column("minimum", Float, nullable=False),
    Column("maximum", Float, nullable=False),
    # Counts by bucket, as JSON.
    Column("histogram", Text, nullable=False),
    sqlite_with_rowid=False,
)

# What is too old is found without looking at the rest.
Index("datapoints_by_start", DATAPOINTS.c.start)

# The number of the last delivery that each gateway process has made: what comes twice counts once.
DELIVERIES = Table(
    "deliveries",
    METADATA,
    Column("source", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("at", Integer, nullable=False),
)

# Requests of asynchronous endpoints. Those that have ended stay for a while, so that one which is handed over twice is
# known again.
ASYNC_REQUESTS = Table(
    "async_requests",
    METADATA,
    # The order in which they came.
    Column("id", Integer, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("queue", Text, nullable=False),
    Column("waiting", Boolean, nullable=False),
    # Microseconds since the epoch.
    Column("accepted_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    # Null while it waits.
    Column("ended_at", BigInteger),
    Column("size", Integer, nullable=False),
    Column("request", JSON, nullable=False),
    # What came with it. The last column: what is large lies apart from the row, and is not read with the others.
    Column("body", LargeBinary),
    sqlite_autoincrement=True,
)

# Each is a walk along what waits alone.
Index(
    "async_requests_by_queue",
    ASYNC_REQUESTS.c.waiting,
    ASYNC_REQUESTS.c.queue,
    ASYNC_REQUESTS.c.id,
    ASYNC_REQUESTS.c.size,
)
Index("async_requests_by_expiry", ASYNC_REQUESTS.c.waiting, ASYNC_REQUESTS.c.expires_at)
Index("async_requests_by_end", ASYNC_REQUESTS.c.ended_at)

NOTIFICATIONS = Table(
    "notifications",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("message", JSON, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("variant", Text, nullable=False),
    # Microseconds since the epoch.
    Column("at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
