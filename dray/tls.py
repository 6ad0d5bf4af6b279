"""How does dray open gRPC channels and servers? The one module that makes them.

Everything that speaks gRPC gets the same options, so that a peer which hangs is noticed on every
connection alike, and none is cut for asking too often. Without TLS both ends must be on this
machine, unless the operator said otherwise.

Why these options (each was measured): a channel pings after 5 s of silence and gives up 2 s later.
Without `grpc.http2.ping_timeout_ms` a peer that hangs (SIGSTOP) was noticed after 62 s instead of
about 7. A server that does not allow frequent pings answers them with GOAWAY "too many pings" after
15 to 20 s; the option that allows them is spelled `min_ping_interval_without_data_ms`, although its
constant in gRPC's source says `MIN_RECV_PING_INTERVAL` (the latter, as a name, does nothing).
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from dray.addresses import HostPort, is_ip, is_loopback
from dray.errors import DrayError, FailedPrecondition, InvalidRequest

if TYPE_CHECKING:
    import grpc
    from grpc_health.v1.health import aio as health_aio

__all__ = [
    "CALLS_MAX",
    "LIST_MESSAGE_BYTES_MAX",
    "MESSAGE_BYTES_MAX",
    "BoundServer",
    "Tls",
    "TlsFiles",
    "add_health_and_reflection",
    "channel_options",
    "client_channel",
    "read_authority",
    "server",
    "server_options",
]

MESSAGE_BYTES_MAX: Final = 4_194_304  # DESIGN section 11; gRPC's own default for receiving
LIST_MESSAGE_BYTES_MAX: Final = 67_108_864  # pages of the store: 1,000 keys of up to 64 kB
CALLS_MAX: Final = 20_000  # calls at once on a server: two long streams for each of 10,000 nodes

KEEPALIVE_MS: Final = 5_000  # silence before a ping; etcd answers 1,000 with too_many_pings
KEEPALIVE_TIMEOUT_MS: Final = 2_000  # wait for the answer
RECV_PING_INTERVAL_MS: Final = 1_000  # what a server allows: well below KEEPALIVE_MS
RECONNECT_MIN_MS: Final = 100
RECONNECT_MAX_MS: Final = 2_000  # gRPC's own 120 s would outlast any fail-over
CONNECT_TIMEOUT_MS: Final = 5_000
PEM_BYTES_MAX: Final = 1_048_576

Options: TypeAlias = list[tuple[str, int | str]]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files of one side; both sides show a certificate (mutual TLS).

    Attributes:
        cert: Certificate, and any chain above it.
        key: Its private key.
        ca: Certificates that the other side's must come from.
    """

    cert: Path
    key: Path
    ca: Path

    def read(self) -> Tls:
        """Read and check the files. Blocks on the disk: call it before the event loop runs.

        Raises:
            FailedPrecondition: A file is missing, cannot be read, is not what it should be, or the
                key does not belong to the certificate.
        """
        cert, key, ca = (_read(path) for path in (self.cert, self.key, self.ca))
        context = _trusting(ca, self.ca)
        try:
            context.load_cert_chain(self.cert, self.key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise FailedPrecondition(
                f"{self.key} is not the unencrypted PEM key of the certificate in {self.cert}"
            ) from error
        return Tls(cert, key, ca)


@dataclass(frozen=True, slots=True)
class Tls:
    """What `TlsFiles` held, in PEM; the key never shows in `repr` or logs.

    Attributes:
        cert: Own certificate; empty: a client that shows none.
        key: Its private key; empty with `cert`.
        ca: Certificates that the other side's must come from.
    """

    cert: bytes
    key: bytes
    ca: bytes

    def __repr__(self) -> str:
        """Return the sizes only."""
        return f"Tls(cert=<{len(self.cert)} bytes>, key=<hidden>, ca=<{len(self.ca)} bytes>)"


def read_authority(path: Path) -> Tls:
    """Read what a client needs that shows no certificate: it knows the server's authority.

    For etcd, which may tell its users by password. Blocks on the disk.

    Raises:
        FailedPrecondition: The file cannot be read, or holds no certificate.
    """
    ca = _read(path)
    _trusting(ca, path)
    return Tls(b"", b"", ca)


@dataclass(frozen=True, slots=True)
class BoundServer:
    """A server that owns its port and is not started yet.

    Attributes:
        server: Add services, then `await server.start()`.
        address: Where it will listen; the port is the real one also when 0 was asked for.
    """

    server: grpc.aio.Server
    address: HostPort


def channel_options(message_bytes_max: int = MESSAGE_BYTES_MAX) -> Options:
    """Return the options of every channel."""
    return [
        *_shared_options(message_bytes_max),
        ("grpc.http2.max_pings_without_data", 0),  # 0: no limit, else an idle channel stops asking
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_MIN_MS),
        ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MAX_MS),
        ("grpc.enable_http_proxy", 0),  # `https_proxy` is for the web, not for a cluster
    ]


def server_options(message_bytes_max: int = MESSAGE_BYTES_MAX) -> Options:
    """Return the options of every server."""
    return [
        *_shared_options(message_bytes_max),
        ("grpc.http2.min_ping_interval_without_data_ms", RECV_PING_INTERVAL_MS),
        ("grpc.so_reuseport", 0),  # a port in use is an error, not a second listener
    ]


def _shared_options(message_bytes_max: int) -> Options:
    return [
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_receive_message_length", message_bytes_max),
        ("grpc.max_send_message_length", message_bytes_max),
    ]


def client_channel(
    address: HostPort | Sequence[HostPort],
    tls: Tls | None,
    *,
    insecure: bool = False,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    has_own_connection: bool = False,
) -> grpc.aio.Channel:
    """Return a channel; it connects on first use. Close it with `await channel.close()`.

    Args:
        address: Where to connect; of several the first that answers. Several must be IP addresses
            of one family, and have no TLS: callers that want more hold a channel for each.
        tls: Certificates, or None for plain text.
        insecure: Allow plain text beyond this machine.
        message_bytes_max: Largest message either way; `LIST_MESSAGE_BYTES_MAX` for the store.
        interceptors: Applied to every call.
        has_own_connection: Share no connection with other channels to the same address, so that
            what is not read here holds up nothing there.

    Raises:
        FailedPrecondition: Plain text to another machine without `insecure`.
        InvalidRequest: Several addresses that one channel cannot serve.
    """
    import grpc

    _keep_poller()
    addresses = (address,) if isinstance(address, HostPort) else tuple(address)
    target = _target(addresses, has_tls=tls is not None)
    options = channel_options(message_bytes_max)
    if has_own_connection:
        options.append(("grpc.use_local_subchannel_pool", 1))
    if tls is None:
        _refuse_plain_text(addresses, insecure=insecure, verb="connect to")
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key or None, tls.cert or None)
    return grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors)


def server(
    address: HostPort,
    tls: Tls | None,
    *,
    insecure: bool = False,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
    calls_max: int = CALLS_MAX,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> BoundServer:
    """Return a server that owns its port. Call it within the event loop that will serve.

    Args:
        address: An IP address of this machine (0.0.0.0 and :: mean all) or `localhost`, and a port.
        tls: Certificates, or None for plain text. With TLS a client must show one of `tls.ca`.
        insecure: Allow plain text beyond this machine.
        message_bytes_max: Largest message either way.
        calls_max: Calls at once; more are refused with RESOURCE_EXHAUSTED.
        interceptors: Applied to every call, the first outermost.

    Raises:
        FailedPrecondition: Plain text for other machines without `insecure`, or the port is taken.
        InvalidRequest: The address is a host name.
    """
    import grpc

    if not is_ip(address.host) and not is_loopback(address.host):
        raise InvalidRequest(
            f"cannot listen on the name {address.host!r}", hint="write an IP address of this host"
        )
    if tls is None:
        _refuse_plain_text((address,), insecure=insecure, verb="listen on")
    assert tls is None or tls.cert, "a server without a certificate"
    _keep_poller()
    made = grpc.aio.server(
        interceptors=tuple(interceptors),
        options=server_options(message_bytes_max),
        maximum_concurrent_rpcs=calls_max,
    )
    try:
        if tls is None:
            port = made.add_insecure_port(str(address))
        else:
            pairs = [(tls.key, tls.cert)]
            credentials = grpc.ssl_server_credentials(pairs, tls.ca, require_client_auth=True)
            port = made.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        raise _cannot_listen(address) from error
    if port == 0:
        raise _cannot_listen(address)
    return BoundServer(made, HostPort(address.host, port))


def add_health_and_reflection(
    bound: BoundServer, services: Sequence[str]
) -> health_aio.HealthServicer:
    """Register the standard health and reflection services, so that standard tools work.

    Args:
        bound: The server, not started yet.
        services: Full names of its own services: "dray.api.v1.ClusterService".

    Returns:
        The health service. It answers SERVING for the server as a whole (the empty name) at once;
        the daemon sets its services' states as it comes up and goes down.
    """
    from grpc_health.v1 import health, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection

    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, bound.server)
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, bound.server)
    return servicer


@functools.cache
def _keep_poller() -> None:
    """Keep gRPC's polling thread for the life of the process.

    Else it ends with the last channel and its end is waited for within the event loop.
    """
    import grpc

    grpc.aio.init_grpc_aio()


def _target(addresses: tuple[HostPort, ...], *, has_tls: bool) -> str:
    if not addresses:
        raise InvalidRequest("there is no address to connect to")
    if len(addresses) == 1:
        host = addresses[0].host
        if is_ip(host):
            return f"{'ipv6' if ':' in host else 'ipv4'}:{addresses[0]}"
        return f"dns:///{addresses[0]}"
    shown = ",".join(map(str, addresses))
    families = {":" in address.host for address in addresses}
    if has_tls or len(families) > 1 or not all(is_ip(address.host) for address in addresses):
        raise InvalidRequest(
            f"one channel cannot serve {shown}", hint="open a channel for each address"
        )
    return f"{'ipv6' if families.pop() else 'ipv4'}:{shown}"


def _refuse_plain_text(addresses: Sequence[HostPort], *, insecure: bool, verb: str) -> None:
    for address in addresses:
        if not insecure and not is_loopback(address.host):
            raise FailedPrecondition(
                f"refused to {verb} {address} without TLS",
                hint="give certificate, key and CA, or --insecure on a network you trust",
                context={"address": str(address)},
            )


def _cannot_listen(address: HostPort) -> DrayError:
    return FailedPrecondition(
        f"cannot listen on {address}",
        hint="the port is taken, or the address is not one of this host's",
        context={"address": str(address)},
    )


def _trusting(ca: bytes, path: Path) -> ssl.SSLContext:
    """Return a context that trusts the certificates of a file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=ca.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise FailedPrecondition(f"{path} holds no certificate in PEM form") from error
    return context


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(PEM_BYTES_MAX + 1)
    except OSError as error:
        raise FailedPrecondition(f"cannot read {path}: {error.strerror}") from error
    if len(content) > PEM_BYTES_MAX:
        raise FailedPrecondition(f"{path} is larger than {PEM_BYTES_MAX} bytes")
    return content


def _no_password() -> str:
    """Answer for an encrypted key; without it the library asks on the terminal."""
    return ""
