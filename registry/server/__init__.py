"""The uvicorn protocol: zero-copy sends and large receives."""
