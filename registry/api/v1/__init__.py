"""The administration API, `/api/v1`."""
