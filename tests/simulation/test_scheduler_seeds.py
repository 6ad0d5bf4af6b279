"""Does the control plane keep its promises whatever a seed makes of its world? One world a seed."""

from __future__ import annotations

from tests.simulation.scheduler_world import broken_in


def test_the_cluster_becomes_what_was_asked(scheduler_seed: int, scheduler_replay: str) -> None:
    """Never two writers, an over-committed node, or an act on an unknown; then all is as asked."""
    print(scheduler_replay)  # shown with a failure
    broken, _ = broken_in(scheduler_seed)
    assert not broken, "\n".join(broken)


def test_the_same_seed_is_the_same_run() -> None:
    """Every commit of two runs of a seed agrees, to the byte and the microsecond."""
    traces = [broken_in(seed)[1] for seed in (3, 3, 4)]
    assert traces[0] == traces[1]
    assert traces[1] != traces[2]
