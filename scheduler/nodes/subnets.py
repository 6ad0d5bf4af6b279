"""Which number is a node's subnet in the cluster's range, and how many are there? Arithmetic."""

from __future__ import annotations

import functools
import ipaddress
from typing import Final

from dray.model import ClusterRecord

__all__ = ["subnet6_of", "subnet_count", "subnet_number", "subnet_of"]

_SUBNET6_PREFIX_MIN: Final = 64  # a node's share of the IPv6 range is never larger


def subnet_count(cluster: ClusterRecord) -> int:
    """Return how many nodes the cluster's range has subnets for."""
    return 1 << max(0, cluster.node_prefix_length - _network(cluster.range_cidr).prefixlen)


@functools.lru_cache(maxsize=16_384)
def subnet_number(range_cidr: str, subnet: str) -> int:
    """Return the position of a subnet in the cluster's range, from 0: a node's stable number."""
    base, own = _network(range_cidr), _network(subnet)
    offset = int(own.network_address) - int(base.network_address)
    return offset >> (own.max_prefixlen - own.prefixlen)


def subnet_of(cluster: ClusterRecord, number: int) -> str:
    """Return the subnet of that number, CIDR."""
    base = _network(cluster.range_cidr)
    step = number << (base.max_prefixlen - cluster.node_prefix_length)
    return f"{base.network_address + step}/{cluster.node_prefix_length}"


def subnet6_of(cluster: ClusterRecord, number: int) -> str:
    """Return the IPv6 subnet of that number, CIDR; empty without an IPv6 range."""
    if not cluster.range6_cidr:
        return ""
    base = _network(cluster.range6_cidr)
    bits = max(0, cluster.node_prefix_length - _network(cluster.range_cidr).prefixlen)
    prefix = max(base.prefixlen + bits, _SUBNET6_PREFIX_MIN)
    step = number << (base.max_prefixlen - prefix)
    return f"{base.network_address + step}/{prefix}"


@functools.lru_cache(maxsize=16_384)
def _network(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(cidr)
