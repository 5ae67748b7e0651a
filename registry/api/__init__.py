"""The HTTP surface: routes, parameters and problems of the Distribution API."""
