"""Is a published port nobody else's, and is one that somebody has left alone?"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from node.network.claims import Claim, Claims
from tests.lab.ports import free_port

HOST = "127.0.0.1"


@pytest.fixture
def claims() -> Iterator[Claims]:
    """Give everything back after the test."""
    made = Claims()
    yield made
    made.close()


@pytest.fixture
def taken() -> Iterator[Claim]:
    """Listen on a port, as another program of the machine would."""
    with socket.create_server((HOST, 0)) as server:
        yield Claim("tcp", HOST, server.getsockname()[1])


def test_a_taken_port_is_refused(claims: Claims, taken: Claim) -> None:
    """The message names the port; on another address it may be free."""
    said = f"port {HOST}:{taken.number}/tcp is taken by another program of the machine"
    assert claims.take(taken, "shop/web") == said
    assert claims.take(Claim("tcp", "127.0.0.2", taken.number), "shop/web") == ""


@pytest.mark.parametrize(
    ("protocol", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)],
    ids=["tcp", "udp"],
)  # fmt: skip
def test_a_claimed_port_is_taken_for_all_others(
    claims: Claims, protocol: str, kind: socket.SocketKind
) -> None:
    """Other programs and other services cannot have it until it is given back."""
    claim = Claim(protocol, HOST, free_port())
    assert claims.take(claim, "shop/web") == ""
    assert claims.take(claim, "shop/web") == ""
    refused = f"port {claim} is published by shop/web already"
    assert claims.take(claim, "shop/api") == refused
    with socket.socket(socket.AF_INET, kind) as program:
        with pytest.raises(OSError, match="in use"):
            program.bind((HOST, claim.number))
        claims.keep_only("shop/web", ())
        program.bind((HOST, claim.number))


def test_connections_that_ended_are_not_in_the_way(claims: Claims) -> None:
    """A port whose last connections still time out can be claimed."""
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((HOST, port)) as client:
            connection, _ = server.accept()
            connection.close()  # the side that closes first keeps the port for a minute
            assert client.recv(1) == b""
    assert claims.take(Claim("tcp", HOST, port), "shop/web") == ""


def test_an_address_that_the_machine_does_not_have(claims: Claims) -> None:
    """It is named, so that the file's `host_ip` can be put right."""
    said = claims.take(Claim("tcp", "192.0.2.1", 8080), "shop/web")
    assert said == "this node does not have the address 192.0.2.1"


def test_the_first_free_one_of_a_range(claims: Claims, taken: Claim) -> None:
    """Ports of programs and of other tasks are passed over; without a range any will do."""
    free = free_port()
    found = claims.take_one_of("tcp", HOST, (taken.number, free), "shop/web")
    assert found == free
    assert claims.take_one_of("tcp", HOST, (taken.number, free), "shop/web") is None
    assert claims.take_one_of("udp", HOST, (), "shop/web") is not None
