"""One container: spec, plan, init, monitor, state."""
