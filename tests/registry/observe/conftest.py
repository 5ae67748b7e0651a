from tests.registry.api.conftest import alice, registry, services, start  # noqa: F401
