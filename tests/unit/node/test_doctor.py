"""Does `dray node doctor` say what is wrong and what repairs it?"""

from __future__ import annotations

import io
from dataclasses import replace

from node.doctor import Examination, report, shell_command
from node.network.plan import Plan, Step, StepKind, plan
from node.network.ruleset import SKELETON_CHAINS
from tests.unit.node.network.test_plan import (
    CONFIG,
    END_COMMAND,
    RIGHT,
    TUNNEL_COMMAND,
    without_link,
)

PEERS = frozenset({"192.0.2.2", "192.0.2.3"})
WELL = Examination(CONFIG, RIGHT, Plan(), SKELETON_CHAINS | {"vip_pick_1"}, PEERS)


def said(done: Examination) -> tuple[int, list[str]]:
    """Return the exit status and the lines that are printed."""
    out = io.StringIO()
    status = report(done, out)
    return status, out.getvalue().splitlines()


def test_a_machine_that_is_well() -> None:
    """One line, and success."""
    assert said(WELL) == (0, ["nothing is wrong"])


def test_what_the_daemon_repairs_is_shown_with_a_command() -> None:
    """Everything that a lost tunnel brings with it, each as one would type it."""
    observed = without_link("dray-vx")
    status, lines = said(replace(WELL, observed=observed, found=plan(CONFIG, observed)))
    assert status == 1
    assert lines[:2] == [
        "problem  the tunnel dray-vx to the other nodes is not there",
        f"repair   ip {TUNNEL_COMMAND}",
    ]
    assert "repair   ip link set dray-vx mtu 1450 up" in lines
    assert f"repair   bridge {END_COMMAND}" in lines
    assert lines[-1].startswith("a running daemon (`dray node run`) repairs")


def test_commands_are_complete() -> None:
    """Whoever copies one does what the daemon would do."""
    cases = {
        Step(StepKind.MODULE, "br_netfilter", ""): "modprobe br_netfilter",
        Step(StepKind.SYSCTL, "net.ipv4.ip_forward=1", ""): "sysctl -w net.ipv4.ip_forward=1",
        Step(StepKind.FORWARD_RULE, "-i dray-vx -j ACCEPT", ""): (
            "iptables -I DOCKER-USER -i dray-vx -j ACCEPT"
        ),
        Step(StepKind.REMOVE_DOCKER_NETWORK, "dray", ""): "docker network rm dray",
        Step(StepKind.DOCKER_NETWORK, "1450", ""): (
            "docker network create --subnet 10.192.2.0/23 --gateway 10.192.2.1 "
            "-o com.docker.network.bridge.name=dray0 "
            "-o com.docker.network.bridge.enable_ip_masquerade=false "
            "-o com.docker.network.driver.mtu=1450 dray"
        ),
    }
    assert {step: shell_command(step, CONFIG, RIGHT) for step in cases} == cases


def test_what_only_a_person_can_do_is_said() -> None:
    """The plan's own sentences name the next step."""
    status, lines = said(replace(WELL, found=Plan(blocked=("a route collides: change it",))))
    assert (status, lines) == (1, ["problem  a route collides: change it", "1 problem"])


def test_an_engine_that_does_not_answer() -> None:
    """It is the first thing that is named."""
    _, lines = said(replace(WELL, engine_problem="the Docker Engine does not answer"))
    assert lines[0] == "problem  the Docker Engine does not answer"
    assert lines[1].startswith("repair   start the Docker Engine")


def test_a_table_that_somebody_has_changed() -> None:
    """Lost chains, nodes that are shut out, and strangers that are let in."""
    changed = replace(WELL, chains=WELL.chains - {"forward", "pre"})
    _, lines = said(changed)
    assert lines[0] == "problem  the nftables table dray has lost its chains forward, pre"
    changed = replace(WELL, guarded=frozenset({"192.0.2.2", "198.51.100.1"}))
    _, lines = said(changed)
    assert lines[0] == "problem  198.51.100.1 may send into the tunnel and is no node"
    assert lines[2] == "problem  packets from 192.0.2.3 are not let into the tunnel"
    assert lines[1] == lines[3]
    assert "systemctl restart dray-node" in lines[1]


def test_a_peer_that_is_silent() -> None:
    """Its address and the port to open are named."""
    _, lines = said(replace(WELL, silent=(CONFIG.peers[1],)))
    assert lines == [
        "problem  nothing comes back from 192.0.2.2 through the tunnel",
        "repair   open UDP port 4790 between all nodes, unless that node is down",
        "1 problem",
    ]
