"""A whole cluster on one machine: etcd, a scheduler and a node, as child processes."""

from cli.dev.cluster import DevCluster, DevSettings

__all__ = ["DevCluster", "DevSettings"]
