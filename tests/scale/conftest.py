from tests.scale.clusters import both_workers, client

__all__ = ["both_workers", "client"]
