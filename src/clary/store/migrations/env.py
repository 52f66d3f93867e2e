"""Alembic's way in. The store hands over a connection whose transaction it commits itself: two processes that open
the same new file migrate it once, one after the other.
"""

from alembic import context

from clary.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
context.run_migrations()
