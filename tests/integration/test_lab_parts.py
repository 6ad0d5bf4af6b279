"""Do the lab's decisions hold on machines unlike this one, such as other cgroup layouts?"""

import os
import subprocess
import sys
from pathlib import Path

from tests.lab import Direction
from tests.lab.cgroups import CgroupTree, parse_mountinfo
from tests.lab.network import Cuts, cut_rules

DEBIAN_12 = """\
24 30 0:22 / /sys rw,nosuid - sysfs sysfs rw
27 24 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
"""
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
32 31 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
"""


def test_one_unified_hierarchy_is_mounted_as_such() -> None:
    """On a cgroup v2 machine a host mounts the one hierarchy at the usual place."""
    tree = CgroupTree("id", parse_mountinfo(DEBIAN_12))
    assert tree.problems() == []
    assert tree.mounts() == [{"point": "/sys/fs/cgroup", "fstype": "cgroup2", "options": ""}]
    assert tree.directories("host1", "sys") == ["/sys/fs/cgroup/dray-lab-id/host1/sys"]


def test_every_hierarchy_of_a_hybrid_machine_is_mounted_with_its_own_controllers() -> None:
    """On a cgroup v1 machine a host mounts each hierarchy with the options that name it."""
    tree = CgroupTree("id", parse_mountinfo(HYBRID))
    assert {mount["point"].rpartition("/")[2]: mount["options"] for mount in tree.mounts()} == {
        "unified": "",
        "systemd": "none,name=systemd",
        "cpu,cpuacct": "cpu,cpuacct",
        "cpuset": "cpuset",
    }
    assert [hierarchy.has_cpuset for hierarchy in tree.hierarchies] == [False, False, False, True]


def test_missing_and_read_only_hierarchies_are_named() -> None:
    """A chroot without cgroups and an unprivileged container get a sentence that helps."""
    (missing,) = CgroupTree("id", []).problems()
    assert "mount -t cgroup2" in missing
    read_only = parse_mountinfo(DEBIAN_12.replace("rw,nosuid shared", "ro,nosuid shared"))
    (refused,) = CgroupTree("id", read_only).problems()
    assert "/sys/fs/cgroup is read-only" in refused
    assert "privileged" in refused


def test_without_root_the_lab_says_so() -> None:
    """`lab up` by an ordinary user fails at once with the reason."""
    result = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1, result
    assert "the lab needs root" in result.stderr


_AS_NOBODY = """
import os, sys
from tests.lab.__main__ import main
os.setuid(65534)
sys.exit(main(["up", "1"]))
"""


def test_a_one_way_cut_spares_address_resolution_and_a_full_one_does_not() -> None:
    """One way, ARP passes, or the open direction would close as well; both ways, nothing does."""
    one_way = cut_rules(Cuts().cut(1, Direction.OUT, [2]))
    assert 'iifname "p1" oifname "p2" ether type != arp drop' in one_way
    assert '"p2" oifname "p1"' not in one_way
    both = cut_rules(Cuts().cut(1, Direction.BOTH, [2]))
    assert 'iifname "p1" oifname "p2" drop' in both
    assert 'iifname "p2" oifname "p1" drop' in both


def test_healing_takes_back_the_cuts_of_one_host_and_power_is_apart() -> None:
    """Heal removes every cut a host has a part in, and leaves others' cuts and dead hosts."""
    cuts = Cuts().cut(1, Direction.BOTH, None).cut(2, Direction.IN, [3]).power(4, on=False)
    assert cuts.of(1) == ["out: all", "in: all"]
    healed = cuts.heal(1)
    assert healed.of(1) == []
    assert healed.of(2) == ["in: 3"]
    assert 'iifname "p4" drop' in cut_rules(healed)
    assert '"p4"' not in cut_rules(healed.power(4, on=True))


def test_all_cuts_are_rules_that_nft_takes(tmp_path: Path) -> None:
    """The rules of every kind of cut pass the check of nft, without being applied."""
    assert os.geteuid() == 0
    cuts = Cuts().cut(1, Direction.BOTH, None).cut(2, Direction.IN, [3, 4]).power(5, on=False)
    rules = tmp_path / "rules"
    rules.write_text(cut_rules(cuts))
    # In a network namespace of its own, so that nothing of the machine's is even looked at.
    result = subprocess.run(
        ["unshare", "--net", "nft", "--check", "-f", str(rules)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
