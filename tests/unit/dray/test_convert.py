"""Does conversion cover the whole model, and does it say where malformed input is wrong?"""

from __future__ import annotations

import dataclasses
import enum
import math

import pytest

from dray import errors, model
from dray.api.v1 import spec_pb2, state_pb2, types_pb2
from dray.convert import (
    CONVERTED,
    ERROR_DETAIL_BYTES_MAX,
    codec,
    error_from_proto,
    error_to_proto,
    from_proto,
    parse,
    refuse_unknown_fields,
    to_proto,
)
from dray.convert.fields import LIST_ITEMS_MAX
from dray.errors import DrayError, ErrorCode, InvalidRequest
from dray.model import (
    ContainerSpec,
    Endpoint,
    EndpointPort,
    Epoch,
    Health,
    ImageOptions,
    Mount,
    MountKind,
    PublishedPort,
    ServiceSpec,
    SlotKey,
    Taint,
    TaintEffect,
    TaskTemplate,
)
from dray.names import TaskId

# A node's view of its peers holds readings of its own clock: node.proto's Member carries ages, and
# gossip.proto's Fact groups facts by node, so neither has the shape of the model's class.
NOT_CONVERTED = {"EndpointView", "Fact", "FactKey", "FactVersion", "Member", "ServiceFacts"}
MODEL_CLASSES = {
    name: value for name in model.__all__ if isinstance(value := getattr(model, name), type)
}
DATACLASSES = {name: cls for name, cls in MODEL_CLASSES.items() if dataclasses.is_dataclass(cls)}
TASK_ID = TaskId("a" * 26)


def service(**changes: object) -> ServiceSpec:
    """Return the smallest service, with changes."""
    container = ContainerSpec(image=ImageOptions(reference="nginx"))
    return dataclasses.replace(
        ServiceSpec(name="web", task=TaskTemplate(container=container)),
        **changes,  # type: ignore[arg-type]
    )


def message_of(**fields: object) -> spec_pb2.ServiceSpec:
    """Return the message of the smallest service, with fields of its container set."""
    message = to_proto(service(), spec_pb2.ServiceSpec)
    message.task.container.MergeFrom(spec_pb2.ContainerSpec(**fields))  # type: ignore[arg-type]
    return message


def test_every_class_of_the_model_has_a_message_and_the_other_way_round() -> None:
    """No class of the model and no message of spec.proto and state.proto is left out."""
    assert set(CONVERTED) == set(DATACLASSES) - NOT_CONVERTED


@pytest.mark.parametrize("name", sorted(CONVERTED))
def test_every_field_is_on_both_sides(name: str) -> None:
    """Fields have the same names in the same order, and types that hold the same values."""
    built = codec._build(DATACLASSES[name])
    assert [row.name for row in built.rows] == [field.name for field in CONVERTED[name].fields]
    assert [row.name for row in built.rows] == [
        field.name for field in dataclasses.fields(DATACLASSES[name])
    ]


def test_every_enumeration_is_on_both_sides() -> None:
    """Each enumeration of the two files is one of the model's and the other way round."""
    on_wire = {
        *spec_pb2.DESCRIPTOR.enum_types_by_name,
        *state_pb2.DESCRIPTOR.enum_types_by_name,
    }
    assert on_wire == {name for name, cls in MODEL_CLASSES.items() if issubclass(cls, enum.Enum)}


@dataclasses.dataclass(frozen=True)
class _MoreFields:
    key: str
    value: str = ""
    effect: TaintEffect = TaintEffect.NO_SCHEDULE
    added: str = ""


@dataclasses.dataclass(frozen=True)
class _OtherType:
    key: str
    value: int = 0
    effect: TaintEffect = TaintEffect.NO_SCHEDULE


@dataclasses.dataclass(frozen=True)
class _OtherDefault:
    key: str
    value: str = "any"
    effect: TaintEffect = TaintEffect.NO_SCHEDULE


class _Effect(enum.Enum):
    NO_SCHEDULE = 1
    NO_EXECUTE = 3


_Effect.__name__ = "TaintEffect"


@dataclasses.dataclass(frozen=True)
class _OtherNumbers:
    key: str
    value: str = ""
    effect: _Effect = _Effect.NO_SCHEDULE


@pytest.mark.parametrize("changed", [_MoreFields, _OtherType, _OtherDefault, _OtherNumbers])
def test_a_class_that_left_the_contract_is_noticed(changed: type) -> None:
    """An added field, another type, a default that absence hides, another number: none passes."""
    changed.__name__ = "Taint"
    with pytest.raises(AssertionError):
        codec._build(changed)


def _has_only_defaults(cls: type) -> bool:
    fields = dataclasses.fields(cls)
    return all(field.default is not dataclasses.MISSING for field in fields)


@pytest.mark.parametrize(
    "name", [name for name in sorted(CONVERTED) if _has_only_defaults(DATACLASSES[name])]
)
def test_an_absent_field_means_the_default_of_the_model(name: str) -> None:
    """An empty message equals the model's class with nothing but defaults."""
    cls = DATACLASSES[name]
    assert from_proto(parse(b"", _message_type(name)), cls) == cls()


def _message_type(name: str) -> type[types_pb2.StringPair]:
    module = spec_pb2 if hasattr(spec_pb2, name) else state_pb2
    return getattr(module, name)  # type: ignore[no-any-return]


def test_defaults_that_are_not_zero_are_sent() -> None:
    """A peer with other defaults still reads what was meant."""
    message = to_proto(PublishedPort(target=80), spec_pb2.PublishedPort)
    assert message.protocol == spec_pb2.PORT_PROTOCOL_TCP
    container = to_proto(service(), spec_pb2.ServiceSpec).task.container
    assert container.HasField("stop_grace_s")
    assert container.stop_grace_s == 10.0


def test_absent_and_empty_lists_differ() -> None:
    """No command keeps the image's, an empty one clears it."""
    absent = from_proto(message_of(), ServiceSpec).task.container
    empty = from_proto(message_of(command={"items": []}), ServiceSpec).task.container
    assert (absent.command, empty.command) == (None, ())


def test_a_map_is_sorted_and_pairs_keep_their_order() -> None:
    """Labels come sorted whoever sent them; the lines of /etc/hosts stay as they are."""
    pairs = [{"key": "b", "value": "1"}, {"key": "a", "value": "2"}, {"key": "c", "value": ""}]
    container = from_proto(message_of(labels=pairs, extra_hosts=pairs), ServiceSpec).task.container
    assert container.labels == (("a", "2"), ("b", "1"), ("c", ""))
    assert container.extra_hosts == (("b", "1"), ("a", "2"), ("c", ""))


@pytest.mark.parametrize(
    ("message", "cls", "path", "text"),
    [
        (spec_pb2.ServiceSpec(name="web"), ServiceSpec, "it.task", "is missing"),
        (
            message_of(mounts=[{"kind": 1}, {"target": "/data"}]),
            ServiceSpec,
            "it.task.container.mounts[1].kind",
            "is missing",
        ),
        (
            message_of(mounts=[{"kind": 99}]),
            ServiceSpec,
            "it.task.container.mounts[0].kind",
            "99 is not known",
        ),
        (
            message_of(labels=[{"key": "a"}, {"key": "b"}, {"key": "a"}]),
            ServiceSpec,
            "it.task.container.labels",
            "'a' occurs twice",
        ),
        (
            message_of(stop_grace_s=math.nan),
            ServiceSpec,
            "it.task.container.stop_grace_s",
            "not a finite number",
        ),
        (
            message_of(dns=["x"] * (LIST_ITEMS_MAX + 1)),
            ServiceSpec,
            "it.task.container.dns",
            "10000 are the most",
        ),
        (
            message_of(command={"items": ["x"] * (LIST_ITEMS_MAX + 1)}),
            ServiceSpec,
            "it.task.container.command",
            "10000 are the most",
        ),
        (
            state_pb2.TaskUsage(task_id=b"short"),
            model.TaskUsage,
            "it.task_id",
            "an id has 16 bytes, this one has 5",
        ),
        (state_pb2.TaskUsage(), model.TaskUsage, "it.task_id", "is missing"),
    ],
)
def test_malformed_input_names_the_field(
    message: types_pb2.StringPair, cls: type, path: str, text: str
) -> None:
    """The error says what is wrong and where, in words and for programs."""
    with pytest.raises(InvalidRequest) as caught:
        from_proto(message, cls, name="it")
    assert caught.value.context["field"] == path
    assert caught.value.message.startswith(f"{path}: ")
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (service(name="\ud800"), "name"),
        (service(ports=(PublishedPort(80), PublishedPort(2**31))), "ports[1].target"),
        (service(labels=(("a", "\ud800"),)), "labels"),
    ],
)
def test_a_value_without_a_form_on_the_wire_is_refused(value: ServiceSpec, path: str) -> None:
    """Text that is none and numbers out of range are named, not passed on to protobuf."""
    with pytest.raises(InvalidRequest) as caught:
        to_proto(value, spec_pb2.ServiceSpec)
    assert caught.value.context["field"] == path


def test_bytes_that_are_no_message_are_refused() -> None:
    """Junk is an InvalidRequest like everything else that is malformed."""
    with pytest.raises(InvalidRequest, match="no ServiceSpec"):
        parse(b"\xff\xff\xff", spec_pb2.ServiceSpec)


def test_a_newer_field_is_ignored_or_refused_by_choice() -> None:
    """A newer peer's field is skipped when converting, and named when it must not be dropped."""
    message = message_of(mounts=[{"kind": 1}, {"kind": 1}])
    message.task.container.mounts[1].MergeFromString(bytes([0xF8, 0x7F, 0x01]))  # field 2047 = 1
    assert len(from_proto(message, ServiceSpec).task.container.mounts) == 2
    with pytest.raises(InvalidRequest) as caught:
        refuse_unknown_fields(message, name="service")
    assert caught.value.context["field"] == "service.task.container.mounts[1]"
    assert "Mount has a field 2047" in caught.value.message
    refuse_unknown_fields(message_of(mounts=[{"kind": 1}]))


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequest("bad", hint="write it as 30s", context={"field": "a.b", "é": "\n"}),
        errors.NotLeader("not here", context={"leader": "10.0.0.1:7800"}),
        errors.AmbiguousWrite("lost the answer"),
        errors.DrayError("odd", code=ErrorCode.OUT_OF_RANGE, retryable=True),
    ],
)
def test_an_error_arrives_as_it_was(error: DrayError) -> None:
    """Class, code, message, hint, context and whether to retry survive the call."""
    detail = error_to_proto(error).SerializeToString()
    arrived = error_from_proto(error.code.value, "status text", detail)
    assert type(arrived) is type(error)
    assert (arrived.code, arrived.message, arrived.hint) == (error.code, error.message, error.hint)
    assert (arrived.retryable, dict(arrived.context)) == (error.retryable, dict(error.context))


def test_a_long_error_still_fits() -> None:
    """Whatever an error says, its detail stays within what gRPC lets through."""
    context = {f"key{number}": "ü" * 1_000 for number in range(100)}
    error = errors.NotFound("ü" * 10_000, hint="\ud800" * 10_000, context=context)
    detail = error_to_proto(error)
    assert 2_000 < detail.ByteSize() <= ERROR_DETAIL_BYTES_MAX
    assert detail.message.endswith("…")


def test_errors_of_strangers_keep_their_code() -> None:
    """A peer without details, with junk or with a newer class gives a plain error of the code."""
    newer = types_pb2.ErrorDetail(name="Tomorrow", message="new").SerializeToString()
    assert error_from_proto(14, "away", None).retryable
    assert error_from_proto(5, "gone", b"\xff\xff").code is ErrorCode.NOT_FOUND
    assert error_from_proto(5, "gone", b"\xff\xff").message == "gone"
    assert error_from_proto(9, "x", newer).message == "new"
    assert error_from_proto(77, "x", None).code is ErrorCode.INTERNAL


def endpoint(number: int, **changes: object) -> Endpoint:
    """Return an endpoint of shop/web, with changes."""
    one = Endpoint(
        slot=SlotKey("shop", "web", number),
        task_id=TASK_ID,
        epoch=Epoch(1, 12_345),
        address=f"10.192.4.{number % 256}",
        health=Health.HEALTHY,
        ports=(EndpointPort(80, "tcp", "http"),),
        networks=("shop_default",),
        aliases=(("shop_default", "a"), ("shop_default", "www")),
    )
    return dataclasses.replace(one, **changes)  # type: ignore[arg-type]


def test_a_mount_is_what_it_was() -> None:
    """One spelled-out example of a round trip, for people to read."""
    mount = Mount(kind=MountKind.VOLUME, source="data", target="/data", read_only=True)
    message = to_proto(mount, spec_pb2.Mount)
    assert (message.kind, message.source) == (spec_pb2.MOUNT_KIND_VOLUME, "data")
    assert not message.HasField("volume")
    assert from_proto(message, Mount) == mount
    assert from_proto(to_proto(Taint("gpu"), state_pb2.Taint), Taint) == Taint("gpu")
