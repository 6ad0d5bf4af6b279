"""Is an interface told from one that a start has not plugged in yet? In a network of its own."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import subprocess
from node.network.kernel import are_still_loose
from node.network.observed import Link

def ip(command):
    subprocess.run(["ip", *command.split()], check=True)

def number():
    return int(open("/sys/class/net/veth1/ifindex").read())

ip("link add veth1 type veth peer name inside")
ip("link add bridge1 type bridge")
seen = Link("veth1", kind="veth", index=number())
print(are_still_loose([seen]))
ip("link set veth1 master bridge1")
print(are_still_loose([seen]))
ip("link set veth1 nomaster")
print(are_still_loose([Link("veth0", kind="veth", index=seen.index), seen]))
ip("link delete veth1")
print(are_still_loose([seen]))
ip("link add veth1 type veth peer name inside")
assert number() != seen.index
print(are_still_loose([seen]), are_still_loose([]))
"""


def test_an_interface_is_loose_until_it_has_a_bridge() -> None:
    """One that has got a bridge, has gone, or has another's name by now is not."""
    inside = ["unshare", "--net", "--mount", "sh", "-c", 'mount -t sysfs s /sys && exec "$@"', "-"]
    done = subprocess.run(
        [*inside, sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False", "True", "False", "False", "False"]
