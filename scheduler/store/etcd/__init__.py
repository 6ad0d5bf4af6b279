"""The store's real adapter: a thin asyncio client of etcd's published gRPC API (v3)."""

from scheduler.store.etcd.calls import EtcdLimits, Login
from scheduler.store.etcd.store import EtcdStore

__all__ = ["EtcdLimits", "EtcdStore", "Login"]
