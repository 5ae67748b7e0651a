"""The runtime specification: container config and state."""
