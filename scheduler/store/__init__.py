"""The control plane's only memory: a port with etcd's guarantees, and its two adapters."""
