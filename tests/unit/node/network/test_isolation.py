"""Does the filter know every container of the node as it should?"""

from __future__ import annotations

from dray.model import (
    ContainerSpec,
    ImageOptions,
    NetworkAttachment,
    NetworkSpec,
    ProjectParts,
    TaskTemplate,
)
from node.network.isolation import LocalTask, hardware_address, local_entries, local_task
from node.network.tables import Entry, Tables, network_name
from tests.unit.node.network.builders import LAYOUT

PARTS = ProjectParts(
    "shop",
    (
        NetworkSpec("front", "shop_front"),
        NetworkSpec("vault", "shared-vault", external=True, internal=True),
    ),
)


def template(*networks: NetworkAttachment | str) -> TaskTemplate:
    """Return a template that is on these networks."""
    attached = tuple(
        each if isinstance(each, NetworkAttachment) else NetworkAttachment(each)
        for each in networks
    )
    return TaskTemplate(ContainerSpec(ImageOptions("web")), networks=attached)


def test_full_names_and_the_way_out() -> None:
    """Networks count by their full names; one that is not internal is enough to leave."""
    mac = "02:42:0a:c0:02:09"
    both = local_task("10.192.2.9", template("vault", "front"), PARTS)
    assert both == LocalTask("10.192.2.9", mac, ("shared-vault", "shop_front"), True)
    assert not local_task("10.192.2.9", template("vault"), PARTS).may_leave
    unknown = local_task("10.192.2.9", template("other"), PARTS)
    assert (unknown.networks, unknown.may_leave) == (("other",), True)


def test_hardware_addresses() -> None:
    """A container's hardware address follows from its address, unless the file names one."""
    assert hardware_address("10.192.2.255") == "02:42:0a:c0:02:ff"
    named = NetworkAttachment("front", mac_address="0A:00:00:00:00:01")
    assert local_task("10.192.2.9", template(named), PARTS).mac_address == "0a:00:00:00:00:01"


def test_entries_of_a_task() -> None:
    """Who may reach it, whom it may ask, where it may go, and what it must look like."""
    tables = Tables(LAYOUT)
    task = LocalTask("10.192.2.9", "02:42:0a:c0:02:09", ("a", "b"), True)
    entries = local_entries(task, tables)
    assert entries[Entry("locals", "10.192.2.9")].startswith("goto to_")
    assert entries[Entry("askers", "10.192.2.9")].startswith("goto ask_")
    others = {
        Entry("sources", "10.192.2.9 . 02:42:0a:c0:02:09"),
        Entry("selves", "10.192.2.9 . 10.192.2.9"),
        Entry("known", "10.192.2.9"),
        Entry("egress", "10.192.2.9"),
        Entry(network_name("a"), "10.192.2.9"),
        Entry(network_name("b"), "10.192.2.9"),
    }
    assert others <= entries.keys()
    inside = local_entries(LocalTask("10.192.2.9", task.mac_address, ("a",), False), tables)
    assert Entry("egress", "10.192.2.9") not in inside
