"""Adopting the directory of another registry (`pyreg adopt`)."""
