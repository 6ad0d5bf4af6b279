"""Is nothing opened in plain text that should not be, and is every bad file named?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dray.addresses import HostPort
from dray.errors import DrayError, FailedPrecondition, InvalidRequest
from dray.tls import (
    LIST_MESSAGE_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    Tls,
    TlsFiles,
    channel_options,
    client_channel,
    read_authority,
    server,
    server_options,
)
from tests.certificates import Authority

_FAR = HostPort("192.0.2.1", 7400)


def test_both_sides_ask_and_allow_asking() -> None:
    """Channels and servers carry the measured keepalive options and the stated message limit."""
    for options in (dict(channel_options()), dict(server_options())):
        assert options["grpc.keepalive_time_ms"] == 5000
        assert options["grpc.keepalive_timeout_ms"] == 2000
        assert options["grpc.http2.ping_timeout_ms"] == 2000
        assert options["grpc.keepalive_permit_without_calls"] == 1
        assert options["grpc.max_receive_message_length"] == MESSAGE_BYTES_MAX == 4 * 1024 * 1024
    assert dict(server_options())["grpc.http2.min_ping_interval_without_data_ms"] == 1000
    lists = dict(channel_options(LIST_MESSAGE_BYTES_MAX))
    assert lists["grpc.max_receive_message_length"] == LIST_MESSAGE_BYTES_MAX


@pytest.mark.parametrize(
    "addresses",
    [
        *(_FAR, HostPort("node1", 7400), HostPort("0.0.0.0", 7400), HostPort("::", 7400)),  # noqa: S104
        (HostPort("127.0.0.1", 1), _FAR),
    ],
    ids=str,
)
async def test_plain_text_stays_on_this_machine(addresses: HostPort | Sequence[HostPort]) -> None:
    """Without TLS a channel beyond loopback is refused, and so is a list with one such address."""
    with pytest.raises(FailedPrecondition, match="without TLS") as caught:
        client_channel(addresses, None)
    assert "--insecure" in caught.value.hint


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
async def test_plain_text_servers_stay_on_this_machine(host: str) -> None:
    """Without TLS a server beyond loopback is refused before anything is opened."""
    with pytest.raises(FailedPrecondition, match="refused to listen") as caught:
        server(HostPort(host, 0), None)
    assert "--insecure" in caught.value.hint


async def test_servers_listen_on_addresses() -> None:
    """A name is not listened on: which address it means is not the server's to guess."""
    with pytest.raises(InvalidRequest, match="'node1'"):
        server(HostPort("node1", 0), None, insecure=True)


async def test_the_operator_may_allow_plain_text() -> None:
    """With `insecure` a channel beyond loopback is made; it connects on first use only."""
    for addresses in (_FAR, (_FAR, HostPort("192.0.2.2", 7400)), HostPort("node1", 7400)):
        channel = client_channel(addresses, None, insecure=True)
        await channel.close()


@pytest.mark.parametrize(
    "addresses",
    [
        (),
        (HostPort("127.0.0.1", 1), HostPort("::1", 1)),
        (HostPort("127.0.0.1", 1), HostPort("localhost", 1)),
    ],
    ids=["none", "two families", "a name"],
)
async def test_one_channel_serves_addresses_of_one_family(addresses: Sequence[HostPort]) -> None:
    """A list that gRPC cannot take as one target is refused, not half-used."""
    with pytest.raises(InvalidRequest):
        client_channel(addresses, None)


def test_good_files_are_read(tmp_path: Path) -> None:
    """Certificate, key and CA are read; the key does not show."""
    files = Authority(tmp_path).issue("n1")
    tls = files.read()
    assert tls == Tls(files.cert.read_bytes(), files.key.read_bytes(), files.ca.read_bytes())
    assert "BEGIN" not in repr(tls)
    assert "key=<hidden>" in repr(tls)


def test_an_authority_alone_is_read_and_serves_clients_only(tmp_path: Path) -> None:
    """A client may know the server's authority and show nothing of its own."""
    files = Authority(tmp_path).issue("n1")
    tls = read_authority(files.ca)
    assert tls == Tls(b"", b"", files.ca.read_bytes())
    with pytest.raises(FailedPrecondition, match=r"n1\.key holds no certificate"):
        read_authority(files.key)
    with pytest.raises(AssertionError, match="without a certificate"):
        server(HostPort("127.0.0.1", 0), tls)


def test_bad_files_are_named(tmp_path: Path) -> None:
    """A missing, empty, foreign or swapped file is refused by its path."""
    authority = Authority(tmp_path)
    good, other = authority.issue("n1"), authority.issue("n2")
    junk = tmp_path / "junk"
    junk.write_bytes(b"\xff\x00junk")
    missing = tmp_path / "missing"
    table = [
        (TlsFiles(missing, good.key, good.ca), "cannot read .*missing: No such file"),
        (TlsFiles(tmp_path, good.key, good.ca), "cannot read"),
        (TlsFiles(good.cert, other.key, good.ca), "n2.key is not the unencrypted PEM key"),
        (TlsFiles(good.cert, junk, good.ca), "junk is not the unencrypted PEM key"),
        (TlsFiles(junk, good.key, good.ca), "certificate in .*junk"),
        (TlsFiles(good.cert, good.key, junk), "junk holds no certificate"),
        (TlsFiles(good.cert, good.key, good.key), "n1.key holds no certificate"),
    ]
    for files, message in table:
        with pytest.raises(DrayError, match=message) as caught:
            files.read()
        assert isinstance(caught.value, FailedPrecondition), files
