"""State: SQLAlchemy Core over SQLite, migrations by Alembic. All SQL of Clary is here and nowhere else.
May import `clary.core` and below.
"""
