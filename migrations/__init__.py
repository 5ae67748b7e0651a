"""The schema's history: one file in `versions/` per change, applied when the registry starts."""

# The newest revision. Compared at start, so that an up-to-date database needs no Alembic import.
HEAD = "0007"
