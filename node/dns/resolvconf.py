"""What do containers read as /etc/resolv.conf, and what does the machine's own say?

A container asks the node's server directly: Docker's embedded resolver in between costs ten times
the latency (measured). Its short names are those of its project (`web`), then of the zone
(`web.shop`), then the machine's own search domains.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dray.addresses import HostPort, is_ip
from node.dns.names import ZONE

__all__ = [
    "DNS_PORT",
    "NAMESERVERS_MAX",
    "MachineResolver",
    "container_resolv_conf",
    "parse_resolv_conf",
    "upstreams_of",
]

DNS_PORT: Final = 53
NAMESERVERS_MAX: Final = 3  # that C libraries read
SEARCH_DOMAINS_MAX: Final = 6
SEARCH_BYTES_MAX: Final = 250  # musl reads 256 of the line
LINES_MAX: Final = 1_000
# The server answers at once or says that it cannot, so a client that waited is one whose node's
# daemon is starting again: ask again soon, and several times.
_OPTIONS: Final = ("ndots:1", "timeout:1", "attempts:5")


@dataclass(frozen=True, slots=True)
class MachineResolver:
    """What the machine's resolv.conf says: addresses of name servers, and search domains."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> MachineResolver:
    """Return what a resolv.conf says. Lines that cannot be read are skipped, as resolvers do."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines()[:LINES_MAX]:
        words = line.split("#")[0].split(";")[0].split()
        if len(words) > 1 and words[0] == "nameserver":
            host, percent, _ = words[1].partition("%")
            # An address with a zone is a link-local one: the zone is part of where to send.
            if is_ip(host):
                nameservers.append(words[1] if percent else str(ipaddress.ip_address(host)))
        elif len(words) > 1 and words[0] in ("search", "domain"):
            search = tuple(words[1:])
    return MachineResolver(tuple(dict.fromkeys(nameservers))[:NAMESERVERS_MAX], search)


def upstreams_of(machine: MachineResolver, own: Iterable[HostPort]) -> tuple[HostPort, ...]:
    """Return where to forward to: the machine's name servers, but never to ourselves."""
    ours = {(address.host, address.port) for address in own}
    return tuple(
        HostPort(host, DNS_PORT) for host in machine.nameservers if (host, DNS_PORT) not in ours
    )


def container_resolv_conf(
    servers: Sequence[str],
    project: str,
    *,
    machine_search: Sequence[str] = (),
    dns: Sequence[str] = (),
    dns_search: Sequence[str] = (),
    dns_opt: Sequence[str] = (),
) -> str:
    """Return the text of a container's resolv.conf.

    Args:
        servers: Addresses of the node's server.
        project: The container's project.
        machine_search: The machine's search domains, put last.
        dns: Name servers that the service names: used in place of the node's, so that names of the
            cluster are not found.
        dns_search: Search domains that the service names, in place of the project's; "." for none.
        dns_opt: Options that the service names; each replaces ours of the same name.
    """
    lines = [f"nameserver {host}" for host in (tuple(dns) or tuple(servers))[:NAMESERVERS_MAX]]
    ours = () if dns else (f"{project}.{ZONE}", ZONE)
    search = _fitting(tuple(dns_search) or (*ours, *machine_search))
    if search and search != ["."]:
        lines.append(f"search {' '.join(search)}")
    named = {option.partition(":")[0] for option in dns_opt}
    kept = [option for option in _OPTIONS if option.partition(":")[0] not in named]
    lines.append(f"options {' '.join((*kept, *dns_opt))}")
    return "".join(f"{line}\n" for line in lines)


def _fitting(domains: Iterable[str]) -> list[str]:
    """Return as many search domains as every C library reads, each once."""
    kept: list[str] = []
    room = SEARCH_BYTES_MAX
    for domain in dict.fromkeys(domains):
        room -= len(domain) + 1
        if room < 0 or len(kept) == SEARCH_DOMAINS_MAX:
            break
        kept.append(domain)
    return kept
