"""The registry server."""
