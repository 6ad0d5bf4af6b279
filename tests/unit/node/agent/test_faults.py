"""Are a node's faults told whole, one of each kind, with their age?"""

from __future__ import annotations

import structlog

from dray.clock import ManualClock
from dray.model import Fault, FaultKind
from node.agent.faults import MESSAGE_CHARS_MAX, Faults


def test_several_of_one_kind_are_one_with_all_sentences() -> None:
    """Two services whose ports are taken: both are told, as old as the older one."""
    faults = Faults(ManualClock(), structlog.get_logger())
    broken = FaultKind.NETWORK_BROKEN
    faults.tell_faults("network", [Fault(broken, 5.0, "one"), Fault(broken, 3.0, "two")])
    assert faults.all() == (Fault(broken, 3.0, "one; two"),)
    long = "x" * MESSAGE_CHARS_MAX
    faults.tell_faults("network", [Fault(broken, 3.0, long), Fault(broken, 4.0, "two")])
    assert [len(fault.message) for fault in faults.all()] == [MESSAGE_CHARS_MAX]
    faults.tell_faults("network", [])
    assert faults.all() == ()
