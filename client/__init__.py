"""The client: talks to any registry and keeps images in a local OCI layout."""
