"""Networks of a container."""
