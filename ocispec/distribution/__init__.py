"""The distribution specification: names, references, errors, ranges, links, challenges, scopes."""
