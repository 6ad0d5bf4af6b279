"""Is every refusal one that a program can read, whatever was sent?"""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from dray.api.v1 import cluster_pb2, types_pb2
from dray.convert import ERROR_DETAIL_KEY
from dray.names import id_bytes
from dray.tls import client_channel
from scheduler.api.service import SERVICE_NAME
from tests.builders import a_service, an_id
from tests.contract.client.rig import Cluster, cluster, project_of, with_nodes

SERVICE = cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"]
METHODS = {method.name: method for method in SERVICE.methods}
UNARY = sorted(
    name
    for name, method in METHODS.items()
    if not method.client_streaming and not method.server_streaming
)
STREAMS = sorted(set(METHODS) - set(UNARY))
NEVER = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNIMPLEMENTED}


def filled(method: str, text: str, number: int) -> Any:
    """Return a request whose texts and numbers are all the same, and which has a request id."""
    request: Any = getattr(cluster_pb2, f"{method}Request")()
    for field in request.DESCRIPTOR.fields:
        if field.is_repeated or field.name == "header":
            continue
        if field.type == FieldDescriptor.TYPE_STRING:
            setattr(request, field.name, text)
        elif field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64):
            setattr(request, field.name, number)
        elif field.type == FieldDescriptor.TYPE_BYTES:
            setattr(request, field.name, text.encode())
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(request, field.name).SetInParent()
    if "write" in request.DESCRIPTOR.fields_by_name:
        request.write.request_id = id_bytes(an_id(hash((method, text, number)) % 1_000_000))
    return request


async def answer(made: Cluster, method: str, request: Message) -> grpc.aio.AioRpcError | None:
    """Make a call; return how it was refused, or None."""
    channel = client_channel(made.first.address, None)
    reply_type: type[Message] = getattr(cluster_pb2, f"{method}Response")
    call: Any = channel.unary_unary(
        f"/{SERVICE_NAME}/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=reply_type.FromString,
    )
    try:
        await call(request, timeout=10.0)
    except grpc.aio.AioRpcError as failure:
        return failure
    finally:
        await channel.close()
    return None


def check(method: str, failure: grpc.aio.AioRpcError | None) -> None:
    """Check that a refusal has a detail, a code that is no bug, and words."""
    if failure is None:
        return
    assert failure.code() not in NEVER, (method, failure.details())
    metadata = dict(failure.trailing_metadata() or ())
    raw = metadata.get(ERROR_DETAIL_KEY)
    assert isinstance(raw, bytes), (method, failure)
    detail = types_pb2.ErrorDetail.FromString(raw)
    assert detail.name, method
    assert detail.message == failure.details()


@pytest.mark.parametrize(
    ("text", "number"),
    [("", 0), ("shop", 1), ("web", -1), ("Ünknown/../name", 2**31 - 1), ("x" * 5_000, -(2**31))],
    ids=["empty", "project", "service", "strange", "long"],
)
async def test_no_request_finds_a_bug(text: str, number: int) -> None:
    """Every call answers nonsense with an answer or a refusal that says what is wrong."""
    async with cluster() as made:
        await with_nodes(made, 1)
        async with made.client() as client:
            await client.apply_project(project_of(a_service("shop"), a_service("web")))
        for method in UNARY:
            request = filled(method, text, number)
            check(method, await answer(made, method, request))
            empty: Any = getattr(cluster_pb2, f"{method}Request")()
            check(method, await answer(made, method, empty))


@pytest.mark.parametrize("method", STREAMS)
async def test_a_stream_without_sense_is_refused(method: str) -> None:
    """Streams that begin with an empty message end with a refusal that can be read."""
    async with cluster() as made:
        channel = client_channel(made.first.address, None)
        request: Any = getattr(cluster_pb2, f"{method}Request")()
        kind = "stream" if METHODS[method].client_streaming else "unary"
        answers = "stream" if METHODS[method].server_streaming else "unary"
        make: Any = getattr(channel, f"{kind}_{answers}")
        open_call = make(
            f"/{SERVICE_NAME}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=getattr(cluster_pb2, f"{method}Response").FromString,
        )

        async def one() -> Any:
            yield request

        call = open_call(one()) if kind == "stream" else open_call(request)
        try:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await anext(aiter(call)) if answers == "stream" else await call
        finally:
            await channel.close()
        check(method, caught.value)
