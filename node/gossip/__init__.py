"""Membership and facts, spread from node to node: a sans-IO core, and the driver of its sockets."""
