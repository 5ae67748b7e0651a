"""The words of the three OCI specifications, as values that cannot be wrong."""
