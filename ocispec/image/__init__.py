"""The image specification: manifests, indexes, configs, layouts."""
