"""Do changes that are written together make the table that they make one by one, and cost less?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dray.model import ServiceKey
from node.gossip.facts import FactStore
from node.network.attachments import AttachedTask
from node.network.balance import HeldPort, ServiceTable, service_table
from node.network.balancer import Balancer
from node.network.isolation import LocalTask, hardware_address
from node.network.tables import network_name
from tests.unit.node.network.builders import task_id
from tests.unit.node.network.test_earlier import WrittenFirewall, heard, started

WEB = ServiceKey("shop", "web")
OTHERS = ("10.192.4.3", "10.192.6.4", "10.192.8.5")
PORT = HeldPort("tcp", "127.0.0.1", 8081, 80)

Change = Callable[[Balancer], None]


def task(last: int, *networks: str, ports: tuple[HeldPort, ...] = ()) -> AttachedTask:
    """Return a container of this node."""
    address = f"10.192.2.{last}"
    return AttachedTask(
        WEB, LocalTask(address, hardware_address(address), networks, may_leave=True), ports
    )


def changes() -> list[Change]:
    """Return what happens: nodes are heard one by one; tasks come, publish a port, and go."""
    store = FactStore()

    def hear(node: int, *addresses: str, version: int = 1) -> Change:
        def take(balancer: Balancer) -> None:
            heard(store, node, *addresses, version=version)
            balancer.set_view(store.view())

        return take

    return [
        *(hear(node, address) for node, address in enumerate(OTHERS, 2)),
        lambda balancer: balancer.set_task(task_id(7), None),
        lambda balancer: balancer.set_task(task_id(1), task(9, "shop_back", "shop_default")),
        lambda balancer: balancer.set_task(task_id(1), task(9, "shop_default", ports=(PORT,))),
        hear(1, "10.192.2.9"),
        Balancer.end_handover,
        hear(3, version=2),
    ]


def outcome(firewall: WrittenFirewall) -> dict[str, object]:
    """Return what the table does, whatever place an endpoint has."""
    elements = firewall.nft.elements
    kept = {name: held for name, held in elements.items() if held and not name.startswith("vip_")}
    return {**kept, "served": firewall.served()}


def test_written_together_or_one_by_one() -> None:
    """The table is the same, and so are the connections that stay."""
    together, at_once = started()
    one_by_one, in_turn = started()
    for change in changes():
        change(together)
    together.write()
    for change in changes():
        change(one_by_one)
        one_by_one.write()
    assert outcome(at_once) == outcome(in_turn)
    assert at_once.served() == ["10.192.2.9", "10.192.4.3", "10.192.8.5"]
    assert OTHERS[0] in at_once.nft.elements[network_name("shop_default")]
    assert PORT.host_ip in next(iter(at_once.nft.elements["ats"]))
    assert not at_once.ended & set(at_once.served())


def test_a_service_is_worked_out_once_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often gossip told of it; a task that publishes nothing of its own costs none."""
    worked_out = 0

    def counted(*arguments: Any) -> ServiceTable:
        nonlocal worked_out
        worked_out += 1
        return service_table(*arguments)

    monkeypatch.setattr("node.network.balancer.service_table", counted)
    balancer, _ = started()
    for change in changes():
        change(balancer)
    worked_out = 0
    balancer.write()
    assert worked_out == 1
    balancer.set_task(task_id(2), task(10, "shop_default"))
    balancer.write()
    assert worked_out == 1
