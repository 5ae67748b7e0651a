"""Kernel words, no policy."""
