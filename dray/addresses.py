"""How are addresses written ("10.0.0.1:7400", "https://etcd1:2379"), and which are local?

The only parser of such text, for flags, files and `DRAY_HOST`. Nothing is looked up: a host name
stays a name.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from dray.errors import InvalidRequest

__all__ = [
    "ADDRESSES_MAX",
    "HOST_LENGTH_MAX",
    "HostPort",
    "ServiceUrl",
    "is_ip",
    "is_loopback",
    "parse_host",
    "parse_host_port",
    "parse_host_ports",
    "parse_service_url",
    "parse_service_urls",
    "static_address_problem",
]

HOST_LENGTH_MAX: Final = 253  # RFC 1035: a name on the wire has 255 bytes
ADDRESSES_MAX: Final = 16  # addresses of one list: clusters have 1, 3 or 5 schedulers
_T = TypeVar("_T")
_PORT_MAX: Final = 65_535
_HOST = re.compile(
    r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\.?", re.ASCII
)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_SHOWN_LENGTH_MAX: Final = 60


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """An IP address or host name, and a TCP or UDP port; 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return the text that `parse_host_port` reads back."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, order=True)
class ServiceUrl:
    """Where a service such as etcd answers: an address, with TLS or without."""

    address: HostPort
    is_tls: bool = False

    def __str__(self) -> str:
        """Return the text that `parse_service_url` reads back."""
        return f"{'https' if self.is_tls else 'http'}://{self.address}"


def parse_host(text: str) -> str:
    """Return an IP address in its one spelling, or a host name in lower case.

    Raises:
        InvalidRequest: Neither.
    """
    if is_ip(text):
        return str(ipaddress.ip_address(text))
    host = text.lower()
    looks_like_ip = re.fullmatch(r"[0-9.]+", host) is not None
    if len(host) > HOST_LENGTH_MAX or looks_like_ip or _HOST.fullmatch(host) is None:
        raise InvalidRequest(f"{_shown(text)} is not an IP address or host name")
    return host


def parse_host_port(text: str, default_port: int | None = None) -> HostPort:
    """Return an address with its port.

    Args:
        text: "10.0.0.1:7400", "[2001:db8::1]:7400" or "name:7400".
        default_port: The port when the text has none; None: it must have one.

    Raises:
        InvalidRequest: The text is something else.
    """
    host, port = _split(text)
    if not port:
        if default_port is None:
            raise InvalidRequest(f"{_shown(text)} has no port", hint="write it as ADDRESS:PORT")
        return HostPort(parse_host(host), default_port)
    if _PORT.fullmatch(port) is None or int(port) > _PORT_MAX:
        raise InvalidRequest(f"{_shown(text)}: the port is not a number from 0 to {_PORT_MAX}")
    if not host:
        raise InvalidRequest(
            f"{_shown(text)} has no address", hint=f"write it as 0.0.0.0:{port} for all addresses"
        )
    return HostPort(parse_host(host), int(port))


def parse_host_ports(text: str, default_port: int | None = None) -> tuple[HostPort, ...]:
    """Return the addresses of a list: "a:1,b:2".

    Raises:
        InvalidRequest: It is empty, longer than `ADDRESSES_MAX`, names one twice, or holds
            something else.
    """
    return _unique(text, tuple(parse_host_port(part, default_port) for part in _parts(text)))


def parse_service_url(text: str) -> ServiceUrl:
    """Return where a service answers: "http://10.0.0.1:2379" or "https://name:2379".

    Raises:
        InvalidRequest: The text is something else. It is not echoed when it holds a password.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise InvalidRequest(
            f"{_shown(text)} is not a URL", hint="write it as http://HOST:PORT or https://HOST:PORT"
        )
    if "@" in rest:
        raise InvalidRequest(
            "a URL must not hold a user or password", hint="there are settings for both"
        )
    return ServiceUrl(parse_host_port(rest.removesuffix("/")), scheme.lower() == "https")


def parse_service_urls(text: str) -> tuple[ServiceUrl, ...]:
    """Return the URLs of a list, all with TLS or all without.

    Raises:
        InvalidRequest: As `parse_host_ports`, and when the list mixes both kinds.
    """
    urls = _unique(text, tuple(parse_service_url(part) for part in _parts(text)))
    if len({url.is_tls for url in urls}) > 1:
        raise InvalidRequest(f"{_shown(text)} mixes http and https", hint="use one of them")
    return urls


def static_address_problem(told: str, pools: Iterable[tuple[str, str]]) -> str:
    """Return why a container cannot be reached at an IPv4 address of a network; empty: it can.

    Args:
        told: The address, as somebody wrote it.
        pools: Subnet (CIDR) and gateway of each pool of the network; the gateway is the subnet's
            first address where it is empty. Subnets that are malformed do not count.
    """
    try:
        address = ipaddress.ip_address(told)
    except ValueError:
        return f"{told!r} is not an IP address"
    if address.version != 4:
        return f"{told} is an IPv{address.version} address"
    known: dict[ipaddress.IPv4Network, str] = {}
    for subnet, gateway in pools:
        with contextlib.suppress(ValueError):
            network = ipaddress.IPv4Network(subnet)
            known[network] = gateway or str(network[min(1, network.num_addresses - 1)])
    if not known:
        return f"{told} is of no subnet: the file names none for the network"
    for network, gateway in known.items():
        if address not in network:
            continue
        if network.prefixlen < 31 and address in (network[0], network[-1]):
            return f"{told} is the network's or the broadcast address of {network}"
        return f"{told} is the gateway of {network}" if told == gateway else ""
    return f"{told} is outside the network's {', '.join(map(str, known))}"


def is_ip(host: str) -> bool:
    """Return whether a host is an IPv4 or IPv6 address rather than a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.version == 4 or address.scope_id is None


def is_loopback(host: str) -> bool:
    """Return whether nobody but this machine can reach a host: 127.0.0.0/8, ::1 or `localhost`."""
    if is_ip(host):
        return ipaddress.ip_address(host).is_loopback
    return host.lower().rstrip(".") == "localhost"  # RFC 6761, section 6.3


def _split(text: str) -> tuple[str, str]:
    """Return the parts before and after the last colon, brackets taken off; no port: empty."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if bracket and ":" in host and (not rest or rest.startswith(":")):
            return host, rest[1:]
        raise InvalidRequest(f"{_shown(text)} is not an address", hint="write it as [::1]:PORT")
    if is_ip(text):
        return text, ""
    host, _, port = text.rpartition(":") if ":" in text else (text, "", "")
    if ":" in host:
        raise InvalidRequest(
            f"{_shown(text)} is not an address", hint="write an IPv6 address as [::1]:PORT"
        )
    return host, port


def _parts(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",", ADDRESSES_MAX)]
    if len(parts) > ADDRESSES_MAX:
        raise InvalidRequest(f"a list of more than {ADDRESSES_MAX} addresses")
    if not all(parts):
        raise InvalidRequest(f"{_shown(text)} holds an empty address")
    return parts


def _unique(text: str, values: tuple[_T, ...]) -> tuple[_T, ...]:
    if len(set(values)) != len(values):
        raise InvalidRequest(f"{_shown(text)} names one address twice")
    return values


def _shown(text: str) -> str:
    """Return a text as a message quotes it, shortened."""
    return repr(text if len(text) <= _SHOWN_LENGTH_MAX else text[:_SHOWN_LENGTH_MAX] + "…")
