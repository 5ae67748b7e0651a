"""Search: the words of a query, the terms of a manifest, and the indexer that brings them in."""
