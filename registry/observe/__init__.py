"""What operators see of a running registry: counts, access log, traces."""
