"""Whatever is asked in whatever order, does the store stay a whole, and does nothing come twice?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from dray.errors import DrayError
from dray.model import (
    ClusterRecord,
    EndpointMode,
    IpamPool,
    NetworkAttachment,
    NetworkSpec,
    ProjectSpec,
    PublishMode,
    ServiceKey,
    ServiceSpec,
    StoreRevision,
)
from dray.names import RequestId
from dray.views import ChangeKind
from scheduler.api import writes
from scheduler.api.edit import Call, Draft
from scheduler.api.static_addresses import static_addresses
from scheduler.store import keys
from scheduler.store.base import Change, Committed, Delete, Operation, Put, Txn
from scheduler.store.codec import encode
from scheduler.store.memory import MemoryData
from scheduler.store.snapshot import Snapshot
from scheduler.store.view import View, decode_change
from tests.builders import CLUSTER_ID, a_port, a_service, an_id

NAMES = ("api", "db", "web")
PROJECTS = ("one", "two")
Drafting = Callable[[Snapshot, Call], Draft]


@dataclass
class World:
    """A store that takes drafts, and the numbers that were given out."""

    data: MemoryData = field(default_factory=lambda: MemoryData(lambda: 0.0))
    numbers: dict[ServiceKey, int] = field(default_factory=dict)
    calls: int = 0

    def __post_init__(self) -> None:
        """Make the cluster."""
        self.commit((), (Put(keys.CLUSTER, encode(ClusterRecord(CLUSTER_ID))),))

    def commit(self, compares: tuple[object, ...], operations: tuple[Operation, ...]) -> None:
        """Commit what must not be in the way of anything."""
        outcome = self.data.commit(Txn(compares, operations))  # type: ignore[arg-type]
        assert isinstance(outcome, Committed), outcome

    def snapshot(self) -> Snapshot:
        """Return what is stored."""
        view = View()
        items = list(self.data.items(keys.ROOT))
        found = [decode_change(Change(item.key, item)) for item in items]
        view.apply(each for each in found if each is not None)
        return view.snapshot(StoreRevision(self.data.revision))

    def call(self) -> Call:
        """Return a new call, in which nothing runs."""
        self.calls += 1
        return Call(RequestId(an_id(self.calls)), float(self.calls), in_use=lambda _: set())

    def carry_out(self, draft_of: Drafting) -> Draft | None:
        """Draft and commit; None when it is refused."""
        before = self.snapshot()
        try:
            draft = draft_of(before, self.call())
        except DrayError:
            return None
        self.commit(draft.compares, draft.operations)
        after = self.snapshot()
        assert after.services == draft.after.services, "the draft told something else"
        self.check(before, after)
        return draft

    def check(self, before: Snapshot, after: Snapshot) -> None:
        """Check what holds of every store."""
        vips = {record.vip: key for key, record in after.services.items() if record.vip}
        vips |= {
            address: key
            for key, record in after.services.items()
            for address in static_addresses(record.spec)
        }
        assert dict(after.vips) == vips, "an address is lost, or has two owners"
        ports = [
            (port.published, port.protocol)
            for record in after.services.values()
            for port in record.spec.ports
            if port.mode is PublishMode.INGRESS
        ]
        assert len(ports) == len(set(ports)), "a port is published twice"
        assert all(number for number, _ in ports), "a port was not chosen"
        for key, record in after.services.items():
            assert key.project in after.projects
            kept = [number for (service, number) in after.revisions if service == key]
            assert len(kept) < after.cluster.limits.revisions_max
            assert record.revision not in kept
            old = before.services.get(key)
            assert old in (None, record) or after.revisions[key, old.revision] == old
            if old is None or old.revision != record.revision:
                last = self.numbers.get(key, 0)
                assert record.revision == last + 1, "a number came twice, or was left out"
                self.numbers[key] = record.revision


def _service(
    name: str, image: str, replicas: int, mode: EndpointMode, ports: list[int], address: str
) -> ServiceSpec:
    published = tuple(a_port(80 + number, port) for number, port in enumerate(ports))
    made = a_service(name, image=image, replicas=replicas, ports=published)
    networks = (NetworkAttachment("n", ipv4_address=address),) if address else ()
    return replace(made, endpoint_mode=mode, task=replace(made.task, networks=networks))


SERVICES = st.builds(
    _service,
    st.sampled_from(NAMES),
    st.sampled_from(["a:1", "a:2"]),
    st.integers(0, 3),
    st.sampled_from(EndpointMode),
    st.lists(st.sampled_from([0, 8080, 8081]), max_size=2, unique=True),
    st.sampled_from(["", "", "10.5.0.8", "10.5.0.9"]),
)
NETWORKS = (NetworkSpec("n", "n", ipam_pools=(IpamPool("10.5.0.0/24"),)),)


SPECS = st.builds(
    lambda name, services: ProjectSpec(
        name, tuple(sorted(services, key=lambda each: each.name)), NETWORKS
    ),
    st.sampled_from(PROJECTS),
    st.lists(SERVICES, max_size=3, unique_by=lambda service: service.name),
)


@settings(max_examples=60)
@given(st.data())
def test_any_sequence_of_writes_keeps_the_store_whole(data: st.DataObject) -> None:
    """Numbers are given once, addresses and ports have one owner, drafts tell what comes."""
    world = World()
    for _ in range(data.draw(st.integers(1, 12))):
        project = data.draw(st.sampled_from(PROJECTS))
        if data.draw(st.integers(0, 5)) == 0:
            _drop(world, project)
        else:
            world.carry_out(data.draw(_drafts(project)))


def _drafts(project: str) -> st.SearchStrategy[Drafting]:
    """Return a strategy of writes; only the first kind is not about the given project."""
    names = st.sampled_from(NAMES)
    return st.one_of(
        st.builds(_applying, SPECS, st.booleans()),
        st.builds(_scaling, st.just(project), names, st.integers(0, 5)),
        st.builds(_restarting, st.just(project)),
        st.builds(_reverting, st.just(project), names, st.none() | st.integers(1, 5)),
        st.builds(_removing, st.just(project)),
    )


def _applying(spec: ProjectSpec, removes: bool) -> Drafting:
    wanted = writes.Wanted(spec, remove_absent_services=removes)
    return lambda snapshot, call: writes.apply_project(snapshot, wanted, call)


def _scaling(project: str, service: str, replicas: int) -> Drafting:
    scales = {service: replicas}
    return lambda snapshot, call: writes.scale_services(snapshot, project, scales, call)


def _restarting(project: str) -> Drafting:
    return lambda snapshot, call: writes.restart_services(snapshot, project, (), call)


def _reverting(project: str, service: str, number: int | None) -> Drafting:
    return lambda snapshot, call: writes.revert_service(snapshot, project, service, number, call)


def _removing(project: str) -> Drafting:
    return lambda snapshot, call: writes.remove_project(
        snapshot, project, call, remove_volumes=False
    )


def _drop(world: World, project: str) -> None:
    """Let the leader end a project that is being removed, as it does when nothing of it runs."""
    record = world.snapshot().projects.get(project)
    if record is None or not record.is_removing:
        return
    prefix = keys.prefix_of(keys.Kind.REVISION, project)
    gone = [keys.project_key(project), *(item.key for item in world.data.items(prefix))]
    world.commit((), tuple(Delete(key) for key in gone))
    world.numbers = {k: number for k, number in world.numbers.items() if k.project != project}


@settings(max_examples=60)
@given(SPECS)
def test_what_is_applied_again_changes_nothing(spec: ProjectSpec) -> None:
    """The same project a second time is no change, whatever dray chose for it."""
    world = World()
    if world.carry_out(_applying(spec, removes=True)) is None:
        return
    again = world.carry_out(_applying(spec, removes=True))
    assert again is not None
    assert again.operations == ()
    assert {each.kind for each in again.changes} <= {ChangeKind.UNCHANGED}
