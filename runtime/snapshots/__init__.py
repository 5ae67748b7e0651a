"""Root file systems from layers."""
