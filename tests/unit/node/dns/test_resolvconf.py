"""Is a container's resolv.conf what every C library understands, and the machine's well read?"""

from __future__ import annotations

import pytest

from dray.addresses import HostPort
from node.dns.resolvconf import (
    MachineResolver,
    container_resolv_conf,
    parse_resolv_conf,
    upstreams_of,
)

SERVERS = ("10.192.0.1",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", MachineResolver()),
        ("nameserver 192.0.2.1\n", MachineResolver(("192.0.2.1",))),
        (
            "# made by hand\nsearch a.example b.example\nnameserver 192.0.2.1 # one\n"
            "nameserver 2001:DB8::1\noptions edns0\n",
            MachineResolver(("192.0.2.1", "2001:db8::1"), ("a.example", "b.example")),
        ),
        ("nameserver\nnameserver x\nnameserver 192.0.2.1;\n", MachineResolver(("192.0.2.1",))),
        ("nameserver 192.0.2.1\n" * 3, MachineResolver(("192.0.2.1",))),
        (
            "".join(f"nameserver 192.0.2.{n}\n" for n in range(1, 9)),
            MachineResolver(("192.0.2.1", "192.0.2.2", "192.0.2.3")),
        ),
        ("nameserver fe80::1%eth0\n", MachineResolver(("fe80::1%eth0",))),
        ("domain x.example\nsearch y.example\n", MachineResolver((), ("y.example",))),
        ("search\n", MachineResolver()),
    ],
)
def test_the_machines_own(text: str, expected: MachineResolver) -> None:
    """Servers and search domains are read as C libraries read them."""
    assert parse_resolv_conf(text) == expected


def test_never_to_ourselves() -> None:
    """An upstream that is ourselves is left out; the same address at another port is not us."""
    machine = MachineResolver(("10.192.0.1", "192.0.2.1"))
    assert upstreams_of(machine, [HostPort("10.192.0.1", 53)]) == (HostPort("192.0.2.1", 53),)
    assert len(upstreams_of(machine, [HostPort("10.192.0.1", 5_353)])) == 2


def test_a_container_of_a_project() -> None:
    """Short names are those of the project, then of the zone, then of the machine's domains."""
    assert container_resolv_conf(SERVERS, "shop", machine_search=("example.com",)) == (
        "nameserver 10.192.0.1\n"
        "search shop.dray.internal dray.internal example.com\n"
        "options ndots:1 timeout:1 attempts:5\n"
    )


def test_what_the_service_names() -> None:
    """Servers, domains and options of the service take the place of ours; "." means no domain."""
    assert container_resolv_conf(
        SERVERS,
        "shop",
        dns=("192.0.2.1", "192.0.2.2"),
        dns_search=("a.example",),
        dns_opt=("ndots:3", "rotate"),
    ) == (
        "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch a.example\n"
        "options timeout:1 attempts:5 ndots:3 rotate\n"
    )
    assert "search" not in container_resolv_conf(SERVERS, "shop", dns_search=(".",))
    assert "dray" not in container_resolv_conf(SERVERS, "shop", dns=("192.0.2.1",))


def test_as_long_as_everybody_reads() -> None:
    """No more servers and domains are named than C libraries read, the project's first."""
    text = container_resolv_conf(
        tuple(f"10.192.0.{n}" for n in range(1, 6)),
        "shop",
        machine_search=tuple(f"{'x' * 60}{n}.example" for n in range(9)),
    )
    lines = text.splitlines()
    assert [line.split()[0] for line in lines] == ["nameserver"] * 3 + ["search", "options"]
    assert lines[3].startswith("search shop.dray.internal dray.internal x")
    assert len(lines[3]) < 256
