"""The container runtime: unpacks images and runs them in namespaces."""
