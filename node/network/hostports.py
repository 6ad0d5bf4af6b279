"""Which ports of the node does a task get that asks for some in host mode?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dray.model import PublishedPort, PublishMode, ServiceKey
from dray.names import TaskId
from node.network.attachments import AttachedTask
from node.network.balance import PROTOCOLS, HeldPort
from node.network.claims import Claim, Claims
from node.ports import AttachRefused

__all__ = ["HostPorts"]


class HostPorts:
    """The ports in host mode that this node's tasks hold; all of one service have one owner."""

    def __init__(self, claims: Claims) -> None:
        """Claim nothing yet."""
        self._claims = claims

    def take(
        self,
        service: ServiceKey,
        ports: Iterable[PublishedPort],
        tasks: Mapping[TaskId, AttachedTask],
    ) -> tuple[HeldPort, ...] | AttachRefused:
        """Claim the ports of a new task of a service: all of them, or none.

        Args:
            service: The task's service.
            ports: Its ports; those that are not in host mode are left out.
            tasks: The tasks that are there already.
        """
        held: list[HeldPort] = []
        for port in ports:
            if port.mode is not PublishMode.HOST:
                continue
            taken = self._take_one(port, _owner(service))
            if isinstance(taken, AttachRefused):
                self.keep(service, tasks)
                return taken
            held.append(taken)
        return tuple(held)

    def _take_one(self, port: PublishedPort, owner: str) -> HeldPort | AttachRefused:
        protocol = PROTOCOLS.get(port.protocol)
        if protocol is None or ":" in port.host_ip:
            what = f"{port.protocol.name} ports" if protocol is None else "IPv6 addresses"
            return AttachRefused(f"{what} cannot be published: port {port.target} of the service")
        if port.published and not port.published_end:
            problem = self._claims.take(Claim(protocol, port.host_ip, port.published), owner)
            number: int | None = None if problem else port.published
        else:
            numbers = range(port.published, port.published_end + 1) if port.published else ()
            number = self._claims.take_one_of(protocol, port.host_ip, numbers, owner)
            problem = f"no port of {port.published}-{port.published_end}/{protocol} is free"
        if number is None:
            return AttachRefused(f"{problem}: publish another one, or free it", retryable=True)
        return HeldPort(protocol, port.host_ip, number, port.target)

    def take_again(self, task: AttachedTask) -> None:
        """Claim a running task's ports after a start; one that is taken now stays published."""
        for port in task.ports:
            self._claims.take(Claim(port.protocol, port.host_ip, port.number), _owner(task.service))

    def keep(self, service: ServiceKey, tasks: Mapping[TaskId, AttachedTask]) -> None:
        """Give back the ports of a service that none of the tasks holds any more."""
        self._claims.keep_only(
            _owner(service),
            [
                Claim(port.protocol, port.host_ip, port.number)
                for task in tasks.values()
                if task.service == service
                for port in task.ports
            ],
        )


def _owner(service: ServiceKey) -> str:
    return f"{service.project}/{service.service} (host mode)"
