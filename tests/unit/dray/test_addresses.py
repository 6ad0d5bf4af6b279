"""Are addresses read in one spelling, and everything else refused with what to write instead?"""

from __future__ import annotations

import pytest

from dray.addresses import (
    ADDRESSES_MAX,
    HostPort,
    ServiceUrl,
    is_loopback,
    parse_host,
    parse_host_port,
    parse_host_ports,
    parse_service_url,
    parse_service_urls,
)
from dray.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("10.0.0.1:7400", HostPort("10.0.0.1", 7400), "10.0.0.1:7400"),
        ("[::1]:7400", HostPort("::1", 7400), "[::1]:7400"),
        ("[2001:DB8:0::1]:1", HostPort("2001:db8::1", 1), "[2001:db8::1]:1"),
        ("Node-1.Example.org:65535", HostPort("node-1.example.org", 65535), None),
        ("localhost:0", HostPort("localhost", 0), "localhost:0"),
        ("0.0.0.0:7400", HostPort("0.0.0.0", 7400), "0.0.0.0:7400"),  # noqa: S104
    ],
)
def test_addresses_are_read_and_written(text: str, address: HostPort, written: str | None) -> None:
    """An address is read in its one spelling, which is read back to the same."""
    assert parse_host_port(text) == address
    assert str(address) == (written or text.lower())
    assert parse_host_port(str(address)) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' has no port"),
        ("10.0.0.1", "'10.0.0.1' has no port"),
        ("::1", "'::1' has no port"),
        ("10.0.0.1:", "'10.0.0.1:' has no port"),
        (":7400", "':7400' has no address (write it as 0.0.0.0:7400 for all addresses)"),
        ("::1:7400:x", "write an IPv6 address as [::1]:PORT"),
        ("[::1]7400", "write it as [::1]:PORT"),
        ("[10.0.0.1]:7400", "write it as [::1]:PORT"),
        ("[::1:7400", "write it as [::1]:PORT"),
        ("10.0.0.1:65536", "not a number from 0 to 65535"),
        ("10.0.0.1:-1", "not a number from 0 to 65535"),
        ("10.0.0.1:٣", "not a number from 0 to 65535"),
        ("10.0.0.256:1", "'10.0.0.256' is not an IP address or host name"),
        ("10.0.1:1", "is not an IP address or host name"),
        ("a b:1", "'a b' is not an IP address or host name"),
        ("-a:1", "is not an IP address or host name"),
        ("a..b:1", "is not an IP address or host name"),
        ("[fe80::1%eth0]:1", "is not an IP address or host name"),
        ("é:1", "is not an IP address or host name"),
        ("a" * 64 + ":1", "is not an IP address or host name"),
        ("a." * 200 + "b:1", "is not an IP address or host name"),
    ],
    ids=lambda value: value[:40],
)
def test_other_text_is_refused(text: str, message: str) -> None:
    """What is no address is refused, shortened, with how to write one."""
    with pytest.raises(InvalidRequest) as caught:
        parse_host_port(text)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_port_may_be_given_for_those_without() -> None:
    """A default port stands in where the text has none."""
    assert parse_host_port("10.0.0.1", 7400) == HostPort("10.0.0.1", 7400)
    assert parse_host_port("::1", 7400) == HostPort("::1", 7400)
    assert parse_host_port("[::1]", 7400) == HostPort("::1", 7400)
    assert parse_host_port("a:1", 7400) == HostPort("a", 1)


def test_lists_are_read() -> None:
    """A list keeps its order; spaces around its commas do not matter."""
    assert parse_host_ports("b:2, a:1") == (HostPort("b", 2), HostPort("a", 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty address"),
        ("a:1,", "empty address"),
        ("a:1,A:1", "one address twice"),
        (",".join(f"a:{port}" for port in range(ADDRESSES_MAX + 1)), "more than 16"),
    ],
    ids=["empty", "trailing comma", "twice", "too many"],
)
def test_other_lists_are_refused(text: str, message: str) -> None:
    """A list is neither empty nor too long, and names nobody twice."""
    with pytest.raises(InvalidRequest, match=message):
        parse_host_ports(text)


def test_urls_are_read() -> None:
    """URLs say where a service is and whether with TLS."""
    assert parse_service_url("http://10.0.0.1:2379/") == ServiceUrl(HostPort("10.0.0.1", 2379))
    urls = parse_service_urls("https://a:2379,HTTPS://[::1]:2379")
    assert urls == (ServiceUrl(HostPort("a", 2379), True), ServiceUrl(HostPort("::1", 2379), True))
    assert str(urls[1]) == "https://[::1]:2379"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.1:2379", "write it as http://"),
        ("unix:///run/etcd", "write it as http://"),
        ("http://10.0.0.1", "has no port"),
        ("http://10.0.0.1:2379/path", "not a number"),
        ("http://root:hunter2@10.0.0.1:2379", "must not hold a user or password"),
        ("http://a:1,https://b:1", "mixes http and https"),
    ],
)
def test_other_urls_are_refused(text: str, message: str) -> None:
    """What is no plain URL of a service is refused; passwords are not echoed."""
    with pytest.raises(InvalidRequest) as caught:
        parse_service_urls(text)
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)),
        *(("LOCALHOST.", True), ("10.0.0.1", False), ("0.0.0.0", False), ("::", False)),  # noqa: S104
        *(("localhost.example.org", False), ("node1", False)),
    ],
)
def test_loopback_is_told_from_the_rest(host: str, is_here: bool) -> None:
    """Only addresses that no other machine reaches are loopback; names are not looked up."""
    assert is_loopback(host) is is_here


def test_hosts_have_one_spelling() -> None:
    """Hosts are kept in one spelling, so that they can be compared."""
    assert parse_host("2001:DB8::0001") == "2001:db8::1"
    assert parse_host("Node1") == "node1"
