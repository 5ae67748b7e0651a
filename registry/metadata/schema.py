"""All tables of the registry, whichever module they are written in."""

from __future__ import annotations

from registry.metadata import tables as tables
from registry.metadata import tables_accounts as tables_accounts
from registry.metadata import tables_collection as tables_collection
from registry.metadata import tables_history as tables_history
from registry.metadata import tables_quotas as tables_quotas
from registry.metadata import tables_search as tables_search
from registry.metadata import tables_tokens as tables_tokens
from registry.metadata.columns import schema as schema
