"""The machine's part of the cluster's network: addresses, tunnels, filters and load balancing."""
