"""How does the table follow gossip, the node's own tasks and the list of peers?

`Balancer` turns each of them into entries, writes what changed in one transaction, and then ends
the connections to endpoints that are gone. Its methods block and are called one at a time, in a
thread of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from dray.errors import DrayError
from dray.model import (
    UNPUBLISHED,
    EndpointView,
    FactKey,
    FactView,
    MemberState,
    ServiceFacts,
    ServiceKey,
)
from dray.names import NodeId, TaskId
from node.discovery import Standing, standing
from node.gossip.packing import service_fact_name
from node.network import kernel, plan
from node.network.attachments import AttachedTask
from node.network.balance import (
    HeldPort,
    flow_addresses,
    host_entries,
    membership_entries,
    published_ports,
    service_keys,
    service_table,
)
from node.network.claims import Claim, Claims
from node.network.earlier import Earlier
from node.network.firewall import Firewall
from node.network.ipam import gateway
from node.network.isolation import local_entries
from node.network.tables import Entries, Entry, Tables
from node.ports import NetworkConfig, NetworkPeer

__all__ = ["Balancer"]

_PEERS: Final = "peers"
_EARLIER: Final = "~earlier"  # behind all other owners: they are served before it


class Balancer:
    """dray's table on this node."""

    def __init__(self, config: NetworkConfig, firewall: Firewall, claims: Claims) -> None:
        """Start with no service and no task; nothing is written."""
        self._firewall = firewall
        self._claims = claims
        self._node_id: NodeId = config.node_id
        self._tables = Tables(plan.layout(config))
        self._places: dict[ServiceKey, tuple[str, ...]] = {}
        self._flows: dict[ServiceKey, frozenset[str]] = {}
        self._networks_of: dict[ServiceKey, frozenset[str]] = {}
        self._datagram_ports: dict[ServiceKey, frozenset[int]] = {}
        self._tasks: dict[TaskId, AttachedTask] = {}
        self._networks: frozenset[str] = frozenset()
        self._view: FactView | None = None
        self._changed: set[ServiceKey] = set()  # their entries are made anew before the next write
        self._ended: set[str] = set()
        self._opened: set[int] = set()
        self._earlier: Earlier | None = None
        self._is_written = False
        self._hairpins = kernel.Hairpins()
        self._flow_problem = ""
        self._refused_ports: dict[ServiceKey, tuple[str, ...]] = {}
        self.configure(config)

    def configure(self, config: NetworkConfig) -> None:
        """Take over the peers, and other addresses if they have changed."""
        wanted = plan.layout(config)
        if wanted != self._tables.layout:
            self._tables.rebuild_text(wanted)
            self._is_written = False  # so the next write replaces all of it
        entries: dict[Entry, str] = {}
        for peer in config.peers:
            if peer.subnet and peer.node_id != config.node_id:
                entries[Entry("peers", peer.address)] = ""
                entries[Entry("gateways", gateway(peer.subnet))] = ""
        self._tables.put(_PEERS, entries)

    def take_over(self, listing: str) -> None:
        """Serve what an earlier daemon's table led to, until `end_handover`; not written yet.

        Args:
            listing: That table, as `Firewall.listing` returns it. Containers of this node that are
                no task of it (`set_task`) are left out.
        """
        self._earlier = Earlier(listing)
        addresses = {task.filtered.address for task in self._tasks.values()}
        self._drop_earlier(lambda address: self._is_own(address) and address not in addresses)

    def end_handover(self) -> None:
        """Go by what gossip has told alone from now on; not written yet."""
        if self._earlier is None:
            return
        self._sync()
        served: frozenset[str] = frozenset().union(*self._flows.values())
        inside = filter(self._tables.layout.holds, self._earlier.addresses())
        self._ended |= frozenset(inside) - served
        self._earlier = None
        self._tables.put(_EARLIER, {})
        self._changed |= set(self._flows) | set(self._view.services() if self._view else ())

    def _drop_earlier(
        self, is_gone: Callable[[str], bool], only: Iterable[Entry] | None = None
    ) -> None:
        assert self._earlier is not None
        self._earlier.drop(is_gone, only)
        self._tables.put(_EARLIER, self._earlier.entries())

    def _is_own(self, address: str) -> bool:
        return self._tables.layout.is_own(address)

    @property
    def gateway(self) -> str:
        """The node's own address in its subnet."""
        return self._tables.layout.gateway

    def set_task(self, task_id: TaskId, task: AttachedTask | None) -> None:
        """Take over one of the node's own tasks, or forget it; not written yet."""
        owner = f"task {task_id}"
        old = self._tasks.pop(task_id, None)
        if task is None:
            self._tables.put(owner, {})
            if self._earlier is not None and old is not None:
                self._drop_earlier(lambda address: address == old.filtered.address)
        else:
            self._tasks[task_id] = task
            self._tables.put(owner, local_entries(task.filtered, self._tables))
        self._changed |= {each.service for each in (old, task) if each is not None and each.ports}

    def set_view(self, view: FactView) -> None:
        """Take over what gossip says; not written yet."""
        changed = view.changed_since(self._view.sequence) if self._view else None
        self._view = view
        self._changed |= {*view.services(), *self._flows} if changed is None else changed

    def try_ports_again(self) -> None:
        """Claim again what could not be claimed; not written yet."""
        self._changed |= self._refused_ports.keys()

    def living_peers(self, config: NetworkConfig) -> list[NetworkPeer]:
        """Return the other nodes that gossip holds to be alive."""
        members = {peer: self._view.member(peer.node_id) for peer in config.peers if self._view}
        return [
            peer
            for peer, member in members.items()
            if peer.subnet and peer.node_id != config.node_id
            if member is not None and member.state is MemberState.ALIVE
        ]

    def is_whole(self) -> bool:
        """Return whether the machine's table is what was written last.

        A table that an earlier daemon left counts as whole until the first `write`.
        """
        if not self._is_written:
            return self._firewall.exists()
        return self._firewall.is_whole()

    def rebuild(self) -> None:
        """Write the whole table anew.

        Raises:
            DrayError: It was not written; what was there stands.
        """
        self._sync()
        self._firewall.rebuild(self._tables)
        self._is_written = True
        self._after_writing()

    def write(self) -> None:
        """Write what changed, then end the connections to what is gone.

        Raises:
            DrayError: It was not written; call it again.
        """
        if not self._is_written:
            self.rebuild()
            return
        self._sync()
        self._firewall.update(self._tables)
        self._after_writing()

    def problems(self) -> tuple[str, ...]:
        """Return a sentence for everything that the table should do and does not."""
        found = [self._flow_problem] if self._flow_problem else []
        found += [problem for each in self._refused_ports.values() for problem in each]
        found += [
            f"{' and '.join(owners)} both want {entry.key} of this node: the first one has it"
            for entry, owners in sorted(self._tables.contested().items())
            if entry.name in ("pubs", "ats", "vips") and _EARLIER not in owners
        ]
        return tuple(found)

    def _after_writing(self) -> None:
        """End connections; a failure is a problem of its own, the table is written all the same."""
        self._hairpins.allow()
        self._flow_problem = ""
        try:
            if self._ended:
                self._firewall.end_flows(self._ended)
                self._ended.clear()
            if self._opened:
                self._firewall.end_datagram_flows(self._opened)
                self._opened.clear()
        except DrayError as error:
            self._flow_problem = f"connections to endpoints that are gone are not ended: {error}"

    def _sync(self) -> None:
        """Make the entries of what changed anew: once for all the changes of one write."""
        networks = frozenset(n for each in self._tasks.values() for n in each.filtered.networks)
        if changed := networks ^ self._networks:
            self._networks = networks
            self._changed |= {key for key, found in self._networks_of.items() if found & changed}
        view = self._view
        if view is None:
            return
        for key in sorted(self._changed):
            self._sync_service(key, view.service(key), view.endpoints(key))
        self._changed.clear()

    def _sync_service(
        self, key: ServiceKey, facts: ServiceFacts | None, views: Sequence[EndpointView]
    ) -> None:
        name = f"{key.project}/{key.service}"
        layout = self._tables.layout
        entries: Entries = {}
        ports: tuple[HeldPort, ...] = ()
        if facts is None:
            self._places.pop(key, None)
            self._claims.keep_only(name, ())
            self._refused_ports.pop(key, None)
        else:
            ports = self._claimed(key, name, published_ports(facts))
            table = service_table(facts, views, ports, layout, self._places.get(key, ()))
            self._places[key], entries = table.places, table.entries
            if self._earlier is not None:
                entries = self._beside_earlier(key, views, facts, ports, entries)
        self._tables.put(f"service {name}", entries)
        self._tables.put(
            f"members {name}", membership_entries(facts, views, self._networks, layout)
        )
        self._tables.put(f"host {name}", host_entries(self._held(key, views)))
        self._note_flows(key, views, ports if entries else ())

    def _beside_earlier(
        self,
        key: ServiceKey,
        views: Sequence[EndpointView],
        facts: ServiceFacts,
        ports: Iterable[HeldPort],
        entries: Entries,
    ) -> Entries:
        """Return a service's entries while an earlier table's are served as well.

        What is only a last resort waits: the endpoints of nodes that were not heard yet are better.
        Of this node's own containers only those are left that it publishes itself.
        """
        if self._view is not None and self._view.fact(
            FactKey(self._node_id, service_fact_name(key))
        ):
            own = {view.endpoint.address for view in views if view.node_id == self._node_id}
            self._drop_earlier(
                lambda address: self._is_own(address) and address not in own,
                service_keys(facts, ports),
            )
        is_ready = any(standing(view)[0] is Standing.READY for view in views)
        return entries if is_ready else {}

    def _held(self, key: ServiceKey, views: Sequence[EndpointView]) -> list[tuple[HeldPort, str]]:
        """Return ports in host mode with the addresses of this node's tasks that are ready."""
        ready = {
            view.endpoint.task_id
            for view in views
            if view.node_id == self._node_id and standing(view)[0] is Standing.READY
        }
        return [
            (port, task.filtered.address)
            for task_id, task in self._tasks.items()
            if task.service == key and task_id in ready
            for port in task.ports
        ]

    def _claimed(
        self, key: ServiceKey, name: str, ports: tuple[HeldPort, ...]
    ) -> tuple[HeldPort, ...]:
        """Return the ports that are this node's to publish; the others become problems."""
        claims = {port: Claim(port.protocol, port.host_ip, port.number) for port in ports}
        self._claims.keep_only(name, claims.values())
        refusals = {port: self._claims.take(claim, name) for port, claim in claims.items()}
        problems = tuple(f"{name}{UNPUBLISHED}{reason}" for reason in refusals.values() if reason)
        if problems:
            self._refused_ports[key] = problems
        else:
            self._refused_ports.pop(key, None)
        return tuple(port for port, reason in refusals.items() if not reason)

    def _note_flows(
        self, key: ServiceKey, views: Sequence[EndpointView], served: tuple[HeldPort, ...]
    ) -> None:
        """Note whose connections must end, and which datagrams must find their way anew."""
        flows = flow_addresses(views, self._tables.layout)
        self._ended |= self._flows.get(key, frozenset()) - flows
        self._ended -= flows  # back before it was written
        datagrams = frozenset(port.number for port in served if port.protocol == "udp")
        self._opened |= datagrams - self._datagram_ports.get(key, frozenset())
        self._networks_of[key] = frozenset(n for view in views for n in view.endpoint.networks)
        self._flows[key], self._datagram_ports[key] = flows, datagrams
        if not views:
            for known in (self._flows, self._networks_of, self._datagram_ports):
                known.pop(key, None)
