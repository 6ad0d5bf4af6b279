"""What does placement see of the cluster? Columns of integers, one row a node."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from dray.model import (
    GPU_MILLIS_WHOLE,
    GpuRequest,
    ResourceReservations,
    ServiceKey,
    ServiceSpec,
)
from dray.names import NodeId
from scheduler.placement.lineage import Attributes, Lineage
from scheduler.placement.node import (
    RESOURCES,
    NodeClass,
    NodeRows,
    PlacementNode,
    PlacementRules,
    PortUse,
    RunningShare,
    TaskKind,
    host_ports,
    kind_of,
    kind_row,
    repels,
)

__all__ = [
    "UNLIMITED",
    "ClusterView",
    "NodeCounts",
    "cluster_view",
    "folded",
    "reservation_row",
    "taken_from",
]

UNLIMITED: Final = int(np.iinfo(np.int64).max)
"""Free amount of a resource that the node is not limited in: it is never counted down."""

_FREE_MIN: Final = -(2**62)  # deficits are cut off here, far below any real one
_PERCENT: Final = 100


_Dtype = TypeVar("_Dtype", bound=np.generic)
_Key = TypeVar("_Key", bound=Hashable)

NodeCounts: TypeAlias = Mapping[NodeId, int]


@dataclass(frozen=True, slots=True, eq=False)
class ClusterView:
    """The cluster at one moment. Immutable; `folded` gives the next one.

    Attributes:
        nodes: The nodes, by node id; row i of every column is `nodes[i]`.
        rules: What the operator said.
        rows: Row of each node.
        resources: Names of the resource columns: `RESOURCES`, then generic ones.
        capacity: int64[n_nodes, n_resources], in the units of `RESOURCES`, or pieces.
        free: int64[n_nodes, n_resources]; negative when a node shrank below what it runs,
            `UNLIMITED` where the node is not limited.
        gpu_free: int64[n_nodes, n_devices], thousandths; -1 where the node has no such device.
        gpu_model: int64[n_nodes, n_devices], index into `models`; 0 where there is no device.
        models: Models of GPUs, sorted.
        accepts_new: bool[n_nodes].
        replicas: Tasks of each service, by node; what has none is absent.
        services: The specification of running services, as far as it is known.
        repellers: Those of them that no others may be put near to.
        ports: Tasks that take each port of a node, by node.
        kinds: How many tasks of each kind run.
        tasks: How many tasks run in all.
        attributes: The nodes' names, labels, taints and platforms as columns.
        lineage: What was computed of this view and of those that it was folded from.
        position: Which view of the lineage this is.
        drift: Tasks that came or went since the lineage began.
    """

    nodes: NodeRows
    rules: PlacementRules
    rows: Mapping[NodeId, int]
    resources: tuple[str, ...]
    capacity: NDArray[np.int64]
    free: NDArray[np.int64]
    gpu_free: NDArray[np.int64]
    gpu_model: NDArray[np.int64]
    models: tuple[str, ...]
    accepts_new: NDArray[np.bool_]
    replicas: Mapping[ServiceKey, NodeCounts]
    services: Mapping[ServiceKey, ServiceSpec]
    repellers: Mapping[ServiceKey, ServiceSpec]
    ports: Mapping[PortUse, NodeCounts]
    kinds: Mapping[TaskKind, int]
    tasks: int
    attributes: Attributes
    lineage: Lineage = field(default_factory=Lineage)
    position: int = 0
    drift: int = 0


def taken_from(free: NDArray[np.int64], demand: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what is left of free amounts once a task has its share; the last axis is resources."""
    return np.where(free == UNLIMITED, free, free - demand)


def reservation_row(
    reservations: ResourceReservations, resources: tuple[str, ...] = RESOURCES
) -> NDArray[np.int64]:
    """Return what one task takes: int64[n_resources]; what has no column is left out.

    Args:
        reservations: What the task reserves.
        resources: Names of the columns.
    """
    return np.array(kind_row(kind_of(reservations), resources), dtype=np.int64)


def cluster_view(
    nodes: Sequence[PlacementNode], rules: PlacementRules | None = None
) -> ClusterView:
    """Return the columns of these nodes, sorted by node id; no two have the same id."""
    rules = rules or PlacementRules()
    ordered = tuple(sorted(nodes, key=lambda node: node.node_id))
    rows = {node.node_id: row for row, node in enumerate(ordered)}
    assert len(rows) == len(ordered), "a node is there twice"
    generic = sorted({each.kind for node in ordered for each in node.capacity.generic})
    resources = (*RESOURCES, *generic)
    models = tuple(sorted({gpu.model for node in ordered for gpu in node.capacity.gpus}))
    n_devices = max((len(node.capacity.gpus) for node in ordered), default=0)
    columns = _Columns(ordered, rules, resources, models, n_devices)
    tally = _Tally({}, {}, {}, {}, {}, 0)
    for node in ordered:
        tally.count(node.node_id, node.running, 1)
    held = NodeRows(ordered)
    return ClusterView(
        held,
        rules,
        rows,
        resources,
        columns.capacity,
        columns.free,
        columns.gpu_free,
        columns.gpu_model,
        models,
        np.array([node.accepts_new for node in ordered], dtype=np.bool_),
        tally.replicas,
        tally.services,
        tally.repellers,
        tally.ports,
        tally.kinds,
        tally.tasks,
        Attributes(held),
    )


def folded(
    view: ClusterView, changed: Iterable[PlacementNode], removed: Iterable[NodeId] = ()
) -> ClusterView:
    """Return the view with some nodes as they are now, in the time of the changes.

    What was computed of the other nodes stays known. A new node, one that is gone, and hardware
    that the columns have no place for cost a pass over all nodes.

    Args:
        view: The view until now; it stays as it was.
        changed: Nodes as they are now, new ones too; each once.
        removed: Nodes that are gone.
    """
    now = {node.node_id: node for node in changed}
    left = set(removed)
    if left or not now.keys() <= view.rows.keys() or not _have_columns(view, now.values()):
        kept = {node.node_id: node for node in view.nodes if node.node_id not in left}
        return cluster_view(list({**kept, **now}.values()), view.rules)
    change = _exchange(view, now)
    lineage, position = Lineage(), 0
    drift = view.drift + change.turnover
    if change.same_attributes:
        lineage, position = view.lineage.grown(view.position, change.rows, drift, view.tasks)
    accepts_new = view.accepts_new.copy()
    accepts_new[change.rows] = [change.nodes[row].accepts_new for row in change.rows]
    made = [change.nodes[row] for row in change.anew]
    capacity, free, gpu_free, gpu_model = _with_rows(view, change.free, made)
    tally = change.tally
    return ClusterView(
        change.nodes,
        view.rules,
        view.rows,
        view.resources,
        capacity,
        free,
        gpu_free,
        gpu_model,
        view.models,
        accepts_new,
        tally.replicas,
        tally.services,
        tally.repellers,
        tally.ports,
        tally.kinds,
        tally.tasks,
        view.attributes if change.same_attributes else Attributes(change.nodes),
        lineage,
        position,
        drift if position else 0,
    )


@dataclass(frozen=True, slots=True)
class _Change:
    """What becomes of a view when some of its nodes change.

    Attributes:
        rows: intp[n], the rows that change, ascending.
        nodes: All nodes as they are now.
        free: int64[n_nodes, n_resources], true but for the rows in `anew`.
        anew: Rows whose hardware may have changed, or whose amounts were cut off.
        tally: The sums now.
        turnover: Tasks more or fewer of some kind on some node.
        same_attributes: Names, labels, taints and platforms are as before.
    """

    rows: NDArray[np.intp]
    nodes: NodeRows
    free: NDArray[np.int64]
    anew: tuple[int, ...]
    tally: _Tally
    turnover: int
    same_attributes: bool


def _exchange(view: ClusterView, now: Mapping[NodeId, PlacementNode]) -> _Change:
    """Return what becomes of a view with some of its nodes as they are now."""
    changed = {view.rows[node_id]: node for node_id, node in now.items()}
    rows = sorted(changed)
    tally = _Tally(
        dict(view.replicas),
        dict(view.services),
        dict(view.repellers),
        dict(view.ports),
        dict(view.kinds),
        view.tasks,
    )
    same_attributes = True
    turnover = 0
    free = view.free.copy(order="K")
    anew: list[int] = []
    for row in rows:
        old, new = view.nodes[row], changed[row]
        same_attributes &= _attributes(old) == _attributes(new)
        gone, come = _difference(old.running, new.running)
        turnover += tally.replace(new.node_id, gone, come)
        is_same = old.capacity == new.capacity and old.labels == new.labels
        amounts = _shifted(free[row].tolist(), gone, come, view.resources)
        if is_same and amounts is not None and not new.capacity.gpus:
            free[row] = amounts
        else:
            anew.append(row)
    return _Change(
        np.array(rows, dtype=np.intp),
        view.nodes.replaced(changed),
        free,
        tuple(anew),
        tally,
        turnover,
        same_attributes,
    )


def _difference(
    old: Sequence[RunningShare], new: Sequence[RunningShare]
) -> tuple[list[RunningShare], list[RunningShare]]:
    """Return the shares that are gone, and those that came."""
    gone, come = _unmatched(old, new, id)  # most are the very same objects
    return _unmatched(gone, come, _mark) if gone and come else (gone, come)


def _unmatched(
    old: Sequence[RunningShare],
    new: Sequence[RunningShare],
    key: Callable[[RunningShare], Hashable],
) -> tuple[list[RunningShare], list[RunningShare]]:
    """Return what is only in the one, and only in the other, by a key."""
    left: dict[Hashable, list[RunningShare]] = {}
    for share in old:
        left.setdefault(key(share), []).append(share)
    come = []
    for share in new:
        same = left.get(key(share))
        if same:
            same.pop()
        else:
            come.append(share)
    return [share for each in left.values() for share in each], come


def _mark(share: RunningShare) -> Hashable:
    """Return what tells shares apart in sums; specifications are shared, so they are not read."""
    return (share.service, share.count, id(share.reservations), id(share.spec), share.gpu_ids)


def _shifted(
    free: list[int],
    gone: Sequence[RunningShare],
    come: Sequence[RunningShare],
    resources: tuple[str, ...],
) -> list[int] | None:
    """Return the free amounts with other tasks; None when they were or are cut off."""
    for sign, shares in ((1, gone), (-1, come)):
        for share in shares:
            amounts = kind_row(kind_of(share.reservations), resources)
            free = [
                have if have == UNLIMITED else have + sign * share.count * amount
                for have, amount in zip(free, amounts, strict=True)
            ]
            if min(free) <= _FREE_MIN:
                return None
    return free if min(free) > _FREE_MIN else None


# ---- columns -------------------------------------------------------------------------------------


def _with_rows(
    view: ClusterView, free: NDArray[np.int64], nodes: list[PlacementNode]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return capacity, free, gpu_free and gpu_model with the rows of some nodes made anew.

    Args:
        view: The view until now.
        free: int64[n_nodes, n_resources], changed in place.
        nodes: The nodes.
    """
    if not nodes:
        return view.capacity, free, view.gpu_free, view.gpu_model
    columns = _Columns(nodes, view.rules, view.resources, view.models, view.gpu_free.shape[1])
    rows = np.array([view.rows[node.node_id] for node in nodes], dtype=np.intp)
    free[rows] = columns.free
    return (
        _replaced(view.capacity, rows, columns.capacity),
        free,
        _replaced(view.gpu_free, rows, columns.gpu_free),
        _replaced(view.gpu_model, rows, columns.gpu_model),
    )


def _replaced(
    column: NDArray[_Dtype], rows: NDArray[np.intp], values: NDArray[_Dtype]
) -> NDArray[_Dtype]:
    copied = column.copy(order="K")
    copied[rows] = values
    return copied


def _attributes(node: PlacementNode) -> tuple[object, ...]:
    return (node.name, node.labels, node.taints, node.platform)


def _have_columns(view: ClusterView, nodes: Iterable[PlacementNode]) -> bool:
    """Return whether what these nodes have is among the columns."""
    for node in nodes:
        if not {each.kind for each in node.capacity.generic} <= set(view.resources):
            return False
        if not {gpu.model for gpu in node.capacity.gpus} <= set(view.models):
            return False
        if len(node.capacity.gpus) > view.gpu_free.shape[1]:
            return False
    return True


class _Columns:
    """The columns of some nodes, in their order: see `ClusterView`."""

    def __init__(
        self,
        nodes: Sequence[PlacementNode],
        rules: PlacementRules,
        resources: tuple[str, ...],
        models: tuple[str, ...],
        n_devices: int,
    ) -> None:
        classes = {each.name: each for each in rules.classes}
        capacity = np.array(
            [_capacity_row(node, rules.class_label, classes, resources) for node in nodes],
            dtype=np.int64,
        ).reshape(len(nodes), len(resources))
        self.capacity = np.asfortranarray(capacity)
        self.free = np.asfortranarray(_free(nodes, capacity, resources))
        codes = {model: code for code, model in enumerate(models)}
        self.gpu_model = np.zeros((len(nodes), n_devices), dtype=np.int64)
        self.gpu_free = np.full((len(nodes), n_devices), -1, dtype=np.int64)
        for row, node in enumerate(nodes):
            if node.capacity.gpus:
                found = [codes[gpu.model] for gpu in node.capacity.gpus]
                self.gpu_model[row, : len(found)] = found
                self.gpu_free[row, : len(found)] = _free_devices(node)


def _capacity_row(
    node: PlacementNode,
    class_label: str,
    classes: Mapping[str, NodeClass],
    resources: tuple[str, ...],
) -> list[int]:
    """Return a node's amounts; the largest number loses one unit to be told from UNLIMITED."""
    capacity = node.capacity
    limited_max = UNLIMITED - 1
    name = next((value for key, value in node.labels if key == class_label), "")
    used_as = classes.get(name, NodeClass()) if classes else NodeClass()
    reserve = used_as.reserve
    generic = {each.kind: each.quantity for each in capacity.generic}
    cpu = max(capacity.cpu_millis - reserve.cpu_millis, 0) * used_as.cpu_percent // _PERCENT
    memory = max(capacity.memory_bytes - reserve.memory_bytes, 0) * used_as.memory_percent
    return [
        min(cpu, limited_max),
        min(memory // _PERCENT, limited_max),
        _limited(capacity.disk_bytes, reserve.disk_bytes),
        _limited(capacity.pids, reserve.pids),
        capacity.tasks_max,
        *(min(generic.get(kind, 0), limited_max) for kind in resources[len(RESOURCES) :]),
    ]


def _limited(reported: int, reserve: int) -> int:
    """Return what can be given out of an amount; what is not reported is not limited."""
    return min(max(reported - reserve, 0), UNLIMITED - 1) if reported else UNLIMITED


def _free(
    nodes: Sequence[PlacementNode], capacity: NDArray[np.int64], resources: tuple[str, ...]
) -> NDArray[np.int64]:
    """Return what is free: int64[n_nodes, n_resources]; sums beyond 64 bits are cut off."""
    numbers: dict[int, int] = {}  # by identity: services share their reservations
    asked: list[list[int]] = []
    at: list[tuple[int, int, int]] = []
    for row, node in enumerate(nodes):
        for share in node.running:
            number = numbers.get(id(share.reservations))
            if number is None:
                number = numbers[id(share.reservations)] = len(asked)
                asked.append(kind_row(kind_of(share.reservations), resources))
            at.append((row, number, share.count))
    if not at:
        return capacity.copy()
    total = sum(count for _, _, count in at)
    if max(map(max, asked)) * total < -_FREE_MIN:
        rows, kinds, counts = np.array(at, dtype=np.int64).T
        used = np.zeros_like(capacity)
        np.add.at(used, rows, np.array(asked, dtype=np.int64)[kinds] * counts[:, None])
        return taken_from(capacity, used)
    left: list[list[int]] = capacity.tolist()
    for row, number, count in at:
        left[row] = [
            have if have == UNLIMITED else have - amount * count
            for have, amount in zip(left[row], asked[number], strict=True)
        ]
    return np.array([[max(have, _FREE_MIN) for have in row] for row in left], dtype=np.int64)


def _free_devices(node: PlacementNode) -> list[int]:
    """Return what is free of each device, in thousandths."""
    gpus = node.capacity.gpus
    free = [GPU_MILLIS_WHOLE] * len(gpus)
    number = {gpu.id: index for index, gpu in enumerate(gpus)}
    untold: list[GpuRequest] = []
    for share in node.running:
        asked = share.reservations.gpu
        if asked is None:
            continue
        for device_ids in share.gpu_ids:
            for device_id in device_ids:
                if device_id in number:
                    free[number[device_id]] -= asked.millis_per_gpu
        untold += [asked] * (share.count - len(share.gpu_ids))
    for asked in sorted(untold, key=lambda each: (-each.millis_per_gpu, -each.count)):
        for _ in range(min(asked.count, len(gpus))):
            fitting = [
                (have, index)
                for index, have in enumerate(free)
                if have >= asked.millis_per_gpu
                and (not asked.models or gpus[index].model in asked.models)
            ]
            have, index = min(fitting, default=(max(free), free.index(max(free))))
            free[index] = have - asked.millis_per_gpu
    return [max(have, 0) for have in free]


# ---- tallies -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tally:
    """Sums over nodes that are not columns; inner mappings of other views are copied first."""

    replicas: dict[ServiceKey, NodeCounts]
    services: dict[ServiceKey, ServiceSpec]
    repellers: dict[ServiceKey, ServiceSpec]
    ports: dict[PortUse, NodeCounts]
    kinds: dict[TaskKind, int]
    tasks: int
    owned: set[object] = field(default_factory=set)
    known: dict[int, tuple[TaskKind, ResourceReservations]] = field(default_factory=dict)

    def replace(
        self, node_id: NodeId, gone: Sequence[RunningShare], come: Sequence[RunningShare]
    ) -> int:
        """Count a node anew; return how many tasks more or fewer there are of some kind."""
        change: dict[TaskKind, int] = {}
        for sign, shares in ((-1, gone), (1, come)):
            self.count(node_id, shares, sign)
            for share in shares:
                kind = self._kind(share.reservations)
                change[kind] = change.get(kind, 0) + share.count * sign
        return sum(map(abs, change.values()))

    def count(self, node_id: NodeId, shares: Sequence[RunningShare], sign: int) -> None:
        """Count tasks of a node in or out."""
        for share in shares:
            count = share.count * sign
            self.tasks += count
            kind = self._kind(share.reservations)
            self.kinds[kind] = self.kinds.get(kind, 0) + count
            if not self.kinds[kind]:
                del self.kinds[kind]
            self._add(self.replicas, share.service, node_id, count)
            if share.spec is None:
                continue
            self.services.pop(share.service, None)
            self.repellers.pop(share.service, None)
            if share.service in self.replicas:
                self.services[share.service] = share.spec
                if repels(share.spec):
                    self.repellers[share.service] = share.spec
            if share.spec.ports:
                for use in host_ports(share.spec):
                    self._add(self.ports, use, node_id, count)

    def _kind(self, reservations: ResourceReservations) -> TaskKind:
        found = self.known.get(id(reservations))
        if found is None:
            found = self.known[id(reservations)] = (kind_of(reservations), reservations)
        return found[0]

    def _add(self, counts: dict[_Key, NodeCounts], key: _Key, node_id: NodeId, count: int) -> None:
        """Add to one count; what is zero is absent."""
        mine = counts.get(key)
        if mine is None or key not in self.owned:
            mine = counts[key] = dict(mine or {})
            self.owned.add(key)
        assert isinstance(mine, dict)
        left = mine.get(node_id, 0) + count
        if left:
            mine[node_id] = left
        else:
            del mine[node_id]
            if not mine:
                del counts[key]
                self.owned.discard(key)
