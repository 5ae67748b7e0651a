"""Benchmarks: us and the peer in turn, in one run, as medians and ratios. `make bench`."""
