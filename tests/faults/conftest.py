from tests.scale.clusters import client

__all__ = ["client"]
