"""The `dray` command: what people and scripts drive a cluster with."""
