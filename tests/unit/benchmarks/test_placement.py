"""Does the packing benchmark read, place and compare as it says?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.placement.__main__ import main
from benchmarks.placement.fgd import FgdPolicy
from benchmarks.placement.hindsight import most_allocated_percent
from benchmarks.placement.policies import POLICIES
from benchmarks.placement.rounds import measure_rounds
from benchmarks.placement.simulate import Simulation, fill, open_on_demand, smallest_fleet
from benchmarks.placement.table import markdown_table
from benchmarks.placement.workload import (
    Fleet,
    Kind,
    Timeline,
    Workload,
    identical_fleet,
    inflated,
    lower_bound,
    read_dlrm,
    read_nodes,
    read_pods,
    replicated_mix,
    service_mix,
    variant,
    without_limits,
)

NODES = "sn,cpu_milli,memory_mib,gpu,model\na,8000,1000,0,\nb,8000,1000,2,T4\nc,8000,1000,2,P100\n"
PODS = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time
late,1000,10,1,500,T4|V100,20
early,1000,10,0,0,,10
big,2000,10,2,1000,,30
"""
DLRM = """role,app_name,cpu_request,memory_request,disk_request,rdma_request,max_instance_per_node,\
creation_time,deletion_time
CN,a,64,100,10,1,1,,50
CN,a,64,100,10,1,1,10,
HN,b,1,1,1,1,-1,,
"""


@pytest.fixture
def trace(tmp_path: Path) -> tuple[Path, Path]:
    """Return files with three nodes and three pods."""
    nodes, pods = tmp_path / "nodes.csv", tmp_path / "pods.csv"
    nodes.write_text(NODES)
    pods.write_text(PODS)
    return nodes, pods


def test_readers(trace: tuple[Path, Path]) -> None:
    """Pods come by creation; a model is a bit; CPU-only nodes can be left out."""
    fleet, models = read_nodes(trace[0])
    workload = read_pods(trace[1], models)
    first, second, third = (workload.kinds[task] for task in workload.tasks)
    assert fleet.gpus.tolist() == [0, 2, 2]
    assert first == Kind((1000, 10))
    assert second == Kind((1000, 10), 1, 500, 1 << models["T4"])
    assert third.gpu_total == 2000
    assert read_nodes(trace[0], gpu_nodes_only=True)[0].gpus.tolist() == [2, 2]


@pytest.mark.parametrize("name", list(POLICIES))
def test_policies_place_what_fits(trace: tuple[Path, Path], name: str) -> None:
    """Every policy places all pods, and the one that asks for a model gets it."""
    fleet, models = read_nodes(trace[0])
    workload = read_pods(trace[1], models)
    filled = fill(fleet, workload, POLICIES[name](workload, 1))
    assert filled.rows[1] == 1
    assert filled.rows[2] == 2
    assert filled.placed_percent(workload)["gpu"] == 100.0
    assert filled.gpu_allocation_percent() == pytest.approx(62.5)


def test_fgd_counts_idle_gpus_that_nobody_can_use() -> None:
    """As in the paper: all that is idle when CPU is short, else what is on too small devices."""
    kind = Kind((6000, 0), 1, 465)
    policy = FgdPolicy(Workload((kind,), (0,)))
    gpus = np.array([[200, 1000, 1000, 500]] * 2)
    found = policy._fragmented(np.array([1000, 6000]), gpus, np.array([0, 0]))
    assert found.tolist() == [2700.0, 200.0]


def test_smallest_fleet_is_exact() -> None:
    """Four halves need two nodes, and the bound says so."""
    workload = Workload((Kind((4000, 1)),), (0, 0, 0, 0))
    assert lower_bound((8000, 100), workload) == 2
    found = smallest_fleet((8000, 100), workload, lambda: POLICIES["first fit"](workload, 1), 1)
    assert found == 2


def test_dlrm_keeps_instances_of_an_application_apart(tmp_path: Path) -> None:
    """Two instances of one a node are on two nodes until one ends."""
    path = tmp_path / "dlrm.csv"
    path.write_text(DLRM)
    timeline = read_dlrm(path)
    assert [arrives for _, _, arrives in timeline.events] == [True, True, False]
    policy = POLICIES["first fit"](timeline.workload, 1)
    peak, mean = open_on_demand((192_000, 10**6, 10**6, 10**6), timeline, policy, 5)
    assert peak == 2
    assert mean == pytest.approx((11 * 1 + 40 * 2) / 51)


def test_node_closes_and_opens_again() -> None:
    """An emptied node is used again before a new one."""
    workload = Workload((Kind((8,)),), (0, 0))
    events = ((0.0, 0, True), (1.0, 0, False), (2.0, 1, True), (3.0, 1, False))
    policy = POLICIES["best fit"](Workload((Kind((8, 8)),), (0, 0)), 1)
    assert open_on_demand((8,), Timeline(workload, events), policy, 1) == (1, 2 / 3)


def test_inflation_reaches_the_demand() -> None:
    """At least the asked share of GPUs is demanded, and at most one task more."""
    workload = Workload((Kind((1, 1)), Kind((1, 1), 1, 500)), (0, 1, 1))
    tasks = inflated(workload, 10, seed=3)
    demanded = sum(workload.kinds[task].gpu_total for task in tasks.tasks)
    assert 13_000 <= demanded < 13_500


@pytest.mark.parametrize("name", ["cpu250", "gpushare100", "multigpu50", "gpuspec33"])
def test_variants_change_what_they_name(name: str) -> None:
    """Each variant shifts the mix as it says."""
    kinds = (Kind((1, 1)), Kind((1, 1), 1, 500), Kind((1, 1), 2, 1000), Kind((1, 1), 1, 1000))
    workload = Workload(kinds, tuple(range(4)) * 300)
    fleet = Fleet(np.array([[1, 1], [1, 1]]), np.array([2, 2]), np.array([0, 1]))
    made = [variant(workload, name, fleet)]
    tasks = [made[0].kinds[task] for task in made[0].tasks]
    several = sum(kind.gpu_total for kind in tasks if kind.gpu_count > 1)
    facts = {
        "cpu250": sum(not kind.gpu_count for kind in tasks) == 750,
        "gpushare100": all(kind.gpu_millis < 1000 for kind in tasks),
        "multigpu50": 0.45 < several / sum(kind.gpu_total for kind in tasks) < 0.55,
        "gpuspec33": 0.2 < sum(kind.gpu_models != -1 for kind in tasks) / 900 < 0.45,
    }
    assert facts[name]


def test_our_score_wins_the_mix() -> None:
    """On a mix of other services than those quoted, no formula needs fewer nodes than ours."""
    node, workload = service_mix(3, 300)
    bound = lower_bound(node, workload)
    sizes = {
        name: smallest_fleet(node, workload, lambda name=name: POLICIES[name](workload, 1), bound)  # type: ignore[misc]
        for name in ("dray", "first fit", "best fit", "Nomad binpack, full scan")
    }
    assert sizes["dray"] == min(sizes.values())


def test_replicas_are_kept_apart() -> None:
    """No node gets all three replicas of a service, at the price of a node or so."""
    node, apart = replicated_mix(3, 150, 3)
    policy = POLICIES["dray"](apart, 1)
    filled = fill(identical_fleet(node, 30), apart, policy)
    services = np.array(filled.rows).reshape(-1, 3)
    assert (services >= 0).all()
    assert (services.min(axis=1) < services.max(axis=1)).all()
    assert without_limits(apart).kinds[0].app_per_node_max == 0


def test_simulation_gives_back_what_it_took() -> None:
    """After a departure the row is as before, under a new version."""
    sim = Simulation(Fleet(np.array([[8, 8]]), np.array([2]), np.array([0])))
    kind = Kind((1, 2), 1, 300)
    device = np.array([1], dtype=np.intp)
    sim.take(kind, 0, device)
    assert sim.gpu_free[0, :2].tolist() == [1000, 700]
    sim.give_back(kind, 0, device)
    assert sim.gpu_free[0, :2].tolist() == [1000, 1000]
    assert sim.free.tolist() == [[8, 8]]
    assert sim.version[0] == 2


def test_command_writes_json_and_table(
    trace: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run prints and writes every section; a second adds to the file."""
    target = tmp_path / "placement.json"
    inputs = ["--nodes", str(trace[0]), "--pods", str(trace[1]), "--seeds", "1"]
    asked = [*inputs, "--write", str(target), "--policies", "dray", "--only"]
    assert main([*asked, "openb", "identical"]) == 0
    assert main([*asked, "gpu"]) == 0
    assert "openb, share placed, %" in json.loads(target.read_text())["results"]
    assert len(json.loads(target.read_text())["results"]) == 3
    assert "| dray | 100" in target.with_suffix(".md").read_text()
    assert '"gpu"' in capsys.readouterr().out


def test_nothing_to_measure_is_an_error() -> None:
    """Without input there is a refusal, not an empty report."""
    assert main([]) == 2
    assert markdown_table({}) == "| policy |\n| --- |\n"


def test_nobody_who_refuses_nothing_exceeds_the_bound() -> None:
    """Blockers come first and leave a fifth of every device, whoever places them."""
    blocker, whole, small = Kind((1, 1), 1, 800), Kind((1, 1), 1, 1000), Kind((1, 1), 1, 200)
    fleet = Fleet(np.array([[999, 999]] * 50), np.full(50, 2), np.zeros(50, dtype=np.int64))
    kinds = (blocker, whole, small)
    late = most_allocated_percent(fleet, Workload(kinds, (0,) * 100 + (1,) * 50))
    assert 80 <= late < 81
    both = most_allocated_percent(fleet, Workload(kinds, (0, 1) * 50 + (2,) * 25))
    assert 95 <= both < 96
    assert most_allocated_percent(fleet, Workload((whole,), (0, 0))) == 100


def test_the_engine_places_a_trace_in_rounds(trace: tuple[Path, Path]) -> None:
    """All pods find room, one a round and all in one."""
    (found,) = measure_rounds(*trace).values()
    assert [each["gpu"] for each in found.values()] == [100.0, 100.0]
