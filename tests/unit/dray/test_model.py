"""Are the values of the shared model immutable, comparable, and documented field by field?"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import typing

import pytest

from dray import model
from dray.model import (
    NO_EPOCH,
    TERMINAL_ATTEMPT_STATES,
    Assignment,
    AttemptState,
    Epoch,
    GossipKey,
    ServiceKey,
    SlotKey,
    StoreRevision,
    string_map,
)
from dray.names import ClusterId, NodeId

_CLASSES = [each for each in vars(model).values() if inspect.isclass(each)]
_VALUES = [each for each in _CLASSES if dataclasses.is_dataclass(each)]
_ENUMS = [each for each in _CLASSES if issubclass(each, enum.Enum)]
_MUTABLE = re.compile(r"\b(list|dict|set|bytearray|List|Dict|Set|Any|object)\b")


def _name(each: type) -> str:
    return each.__name__


@pytest.mark.parametrize("value", _VALUES, ids=_name)
def test_values_do_not_change(value: type) -> None:
    """Every value is frozen and slotted, and none of its fields can hold something mutable."""
    parameters = value.__dataclass_params__  # type: ignore[attr-defined]
    assert parameters.frozen
    assert parameters.eq
    assert "__slots__" in vars(value)
    for name, hint in typing.get_type_hints(value).items():
        assert not _MUTABLE.search(str(hint)), name


@pytest.mark.parametrize("value", _VALUES, ids=_name)
def test_listed_fields_are_the_fields(value: type) -> None:
    """A docstring that lists attributes lists exactly the fields, in their order."""
    _, _, listed = (inspect.getdoc(value) or "").partition("Attributes:\n")
    names = re.findall(r"^    (\w+): ", listed, re.MULTILINE)
    fields = [field.name for field in dataclasses.fields(value)]
    assert names in ([], fields)
    assert value.__doc__


@pytest.mark.parametrize("closed_set", _ENUMS, ids=_name)
def test_closed_sets_have_no_zero(closed_set: type[enum.Enum]) -> None:
    """Numbers start above 0 and are distinct: on the wire 0 means that nothing was said."""
    numbers = [each.value for each in closed_set.__members__.values()]
    assert all(isinstance(number, int) and number >= 1 for number in numbers)
    assert len(set(numbers)) == len(numbers)
    assert closed_set.__doc__


def test_epochs_are_ordered_as_pairs() -> None:
    """A restore beats every election before it; no epoch is below `NO_EPOCH`."""
    epochs = [Epoch(2, 3), Epoch(1, 900), NO_EPOCH, Epoch(1, 7), Epoch(2, 1)]
    assert sorted(epochs) == [NO_EPOCH, Epoch(1, 7), Epoch(1, 900), Epoch(2, 1), Epoch(2, 3)]


def test_assignments_are_ordered_by_epoch_then_revision() -> None:
    """Of two assignments the one of the later term is newer, whatever its revision."""

    def made(epoch: Epoch, revision: int) -> Assignment:
        return Assignment(ClusterId("c"), NodeId("n"), epoch, StoreRevision(revision))

    assert made(Epoch(2, 1), 5).version > made(Epoch(1, 9), 50).version
    assert made(Epoch(1, 9), 51).version > made(Epoch(1, 9), 50).version


def test_attempts_move_through_their_states_upwards() -> None:
    """Waiting states come before RUNNING, and every end comes after STOPPING."""
    assert list(AttemptState) == sorted(AttemptState)
    assert min(TERMINAL_ATTEMPT_STATES) > AttemptState.STOPPING > AttemptState.RUNNING
    ends = {state for state in AttemptState if state > AttemptState.STOPPING}
    assert ends == TERMINAL_ATTEMPT_STATES


def test_slots_sort_by_number() -> None:
    """`web.10` comes after `web.2`, and each slot knows its service."""
    slots = [SlotKey("shop", "web", number) for number in (10, 2, 1)]
    assert [slot.slot for slot in sorted(slots)] == [1, 2, 10]
    assert slots[0].service_key == ServiceKey("shop", "web")


def test_maps_are_sorted_pairs() -> None:
    """Two maps with the same content are equal and hash alike, whatever their order was."""
    first, second = string_map({"b": "2", "a": "1"}), string_map({"a": "1", "b": "2"})
    assert first == second == (("a", "1"), ("b", "2"))
    assert dict(first) == {"a": "1", "b": "2"}


def test_key_material_does_not_show() -> None:
    """A gossip key prints its number and length."""
    assert "secret" not in repr(GossipKey(3, b"secret"))
    assert "key_id=3" in f"{GossipKey(3, b'secret')}"
