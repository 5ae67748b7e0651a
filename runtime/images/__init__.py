"""Images as the runtime needs them: pulled, unpacked, read."""
