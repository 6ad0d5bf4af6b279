"""Which networks is a service on, which ports does it publish, and which networks are there?"""

from __future__ import annotations

from typing import Final

from dray.compose.place import Place
from dray.model import (
    IpamPool,
    Link,
    NetworkAttachment,
    NetworkMode,
    NetworkSpec,
    PortProtocol,
    PublishedPort,
    PublishMode,
)

__all__ = ["attachments", "is_external", "links", "network", "network_mode", "ports"]

PORT_MAX: Final = 65_535
_MODES: Final = {"": PublishMode.INGRESS, "ingress": PublishMode.INGRESS, "host": PublishMode.HOST}
_PROTOCOLS: Final = {
    "": PortProtocol.TCP,
    "tcp": PortProtocol.TCP,
    "udp": PortProtocol.UDP,
    "sctp": PortProtocol.SCTP,
}


def attachments(service: Place) -> tuple[NetworkAttachment, ...]:
    """Return the networks of a service, sorted by name."""
    return tuple(_attachment(name, place) for name, place in service.at("networks").entries())


def _attachment(name: str, place: Place) -> NetworkAttachment:
    if not place.value:  # most attachments say no more than the name
        return NetworkAttachment(name)
    return NetworkAttachment(
        network=name,
        aliases=place.at("aliases").texts(),
        ipv4_address=place.at("ipv4_address").text(),
        ipv6_address=place.at("ipv6_address").text(),
        link_local_ips=place.at("link_local_ips").texts(),
        mac_address=place.at("mac_address").text(),
        priority=_int32(place.at("priority")),
        gateway_priority=_int32(place.at("gw_priority")),
        interface_name=place.at("interface_name").text(),
        driver_opts=place.at("driver_opts").pairs(),
    )


def _int32(place: Place) -> int:
    value = place.whole()
    if not -(2**31) <= value < 2**31:
        place.fault(f"{value} is outside -2^31 to 2^31-1")
        return 0
    return value


def network_mode(service: Place) -> tuple[NetworkMode, str]:
    """Return which network stack a service gets, and who lends it."""
    place = service.at("network_mode")
    told = place.text()
    kind, _, target = told.partition(":")
    if kind in ("service", "container"):
        if not target:
            place.fault(f"{told!r} names no {kind}")
        mode = NetworkMode.SERVICE if kind == "service" else NetworkMode.CONTAINER
        return mode, target
    if told == "host":
        return NetworkMode.HOST, ""
    if told == "none":
        return NetworkMode.NONE, ""
    return NetworkMode.CLUSTER, ""


def links(place: Place) -> tuple[Link, ...]:
    """Return `links`: `service` or `service:alias`."""
    pairs = (text.partition(":") for text in place.texts())
    return tuple(Link(service, alias or service) for service, _, alias in pairs)


def ports(service: Place) -> tuple[PublishedPort, ...]:
    """Return the published ports in the file's order."""
    found = [_port(item) for item in service.at("ports").items()]
    return tuple(port for port in found if port is not None)


def _port(place: Place) -> PublishedPort | None:
    mode = _MODES.get(place.at("mode").text())
    if mode is None:
        place.at("mode").fault(f"{place.at('mode').text()!r} is no mode", "write ingress or host")
    protocol = _PROTOCOLS.get(place.at("protocol").text().lower())
    if protocol is None:
        told = place.at("protocol").text()
        place.at("protocol").fault(f"{told!r} is no protocol", "write tcp, udp or sctp")
    target = place.at("target").whole()
    if not 1 <= target <= PORT_MAX:
        place.at("target").fault(f"{target} is not a port", f"a port is 1 to {PORT_MAX}")
        return None
    published, published_end = _published(place.at("published"))
    return PublishedPort(
        target=target,
        published=published,
        published_end=published_end,
        protocol=protocol or PortProtocol.TCP,
        mode=mode or PublishMode.INGRESS,
        host_ip=place.at("host_ip").text(),
        name=place.at("name").text(),
        app_protocol=place.at("app_protocol").text(),
    )


def _published(place: Place) -> tuple[int, int]:
    """Return `8080` or `8000-8010` as first and last port; 0 where nothing is said."""
    told = place.text()
    if not told:
        return 0, 0
    low, dash, high = told.partition("-")
    numbers = [low, high] if dash else [low]
    if not all(text.isascii() and text.isdecimal() and len(text) <= 5 for text in numbers):
        place.fault(f"{told!r} is not a port or a range of ports", "write 8080 or 8000-8010")
        return 0, 0
    first, last = int(low), int(high) if dash else 0
    if max(first, last) > PORT_MAX:
        place.fault(f"{told} is above {PORT_MAX}")
        return 0, 0
    if dash and last < first:
        place.fault(f"{told} ends before it starts")
        return 0, 0
    return first, last if last > first else 0


def network(key: str, place: Place, project: str) -> NetworkSpec:
    """Return one network of the project."""
    ipam = place.at("ipam")
    return NetworkSpec(
        key=key,
        name=place.at("name").text() or f"{project}_{key}",
        external=is_external(place),
        internal=place.at("internal").flag(),
        attachable=place.at("attachable").flag(),
        driver=place.at("driver").text(),
        driver_opts=place.at("driver_opts").pairs(),
        ipam_driver=ipam.at("driver").text(),
        ipam_pools=tuple(_pool(item) for item in ipam.at("config").items()),
        enable_ipv4=place.at("enable_ipv4").maybe_flag(),
        enable_ipv6=place.at("enable_ipv6").maybe_flag(),
        labels=place.at("labels").pairs(),
    )


def is_external(place: Place) -> bool:
    """Return whether something is made outside the project: `external: true` or a mapping."""
    told = place.at("external")
    if isinstance(told.value, dict):
        told.mark()
        return True
    return told.flag()


def _pool(place: Place) -> IpamPool:
    return IpamPool(
        subnet=place.at("subnet").text(),
        ip_range=place.at("ip_range").text(),
        gateway=place.at("gateway").text(),
        aux_addresses=place.at("aux_addresses").pairs(),
    )
