"""Registries and the local image store, from the user's side: pull, push, tag, list, remove.

Nothing is imported here: `pyreg run` reads the local store and must not pay for sockets and TLS.
"""
