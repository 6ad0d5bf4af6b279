"""Does the control plane keep its promises whatever a seed makes of its world? One world a seed."""

from __future__ import annotations

from tests.simulation.scheduler_world import broken_in


def test_the_cluster_becomes_what_was_asked(seed: int) -> None:
    """Never two writers, an over-committed node, or an act on an unknown; then all is as asked."""
    print(f"replay: ./dev.sh test --layer simulation -- --seed {seed} -k scheduler_seeds")
    broken, _ = broken_in(seed)
    assert not broken, "\n".join(broken)


def test_the_same_seed_is_the_same_run() -> None:
    """Every commit of two runs of a seed agrees, to the byte and the microsecond."""
    traces = [broken_in(number)[1] for number in (3, 3, 4)]
    assert traces[0] == traces[1]
    assert traces[1] != traces[2]
