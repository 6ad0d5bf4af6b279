"""How is a cluster driven by a text, and what does it print? The language of `scenarios/*.txt`.

A line that begins with "> " is a command; the lines after it, up to the next command or an empty
line, are its output. Everything else is a comment and stays as it is. Commands:

    > start a b c          start nodes, or start them again
    > run 2.5              let seconds pass
    > crash a              power loss; also `pause a`, `resume a`, `leave a`
    > cut a b -> c         nothing passes from a or b to c; `<->`: nor back; `heal` ends all cuts
    > loss 0.25            every datagram is lost with this probability
    > publish a web 1 2    node a publishes these slots of service shop/web; none: withdraws it
    > members              what each running node holds every node to be
    > evidence c           what each running node's own probes find of c, and for how long
    > service web          which endpoints of shop/web each running node sees
    > until a: c DEAD 10   wait until a holds c to be DEAD, at most 10 s; prints nothing but a miss
"""

from __future__ import annotations

from collections.abc import Callable

from dray.model import ServiceKey
from node.gossip.core import Leave, PublishFact
from node.gossip.packing import service_fact_name
from tests.contract.facts.builders import service_fact
from tests.simulation.gossip_cluster import GossipCluster, node_id_of
from tests.simulation.world import LinkQuality

__all__ = ["Script", "run_text"]


def run_text(text: str) -> str:
    """Return a scenario's text with the output that its commands really have."""
    script = Script()
    lines: list[str] = []
    is_output = False
    for line in text.splitlines():
        if line.startswith("> "):
            lines.append(line)
            lines += script.run(line[2:])
            is_output = True
        elif not line or line.startswith("#"):
            lines.append(line)
            is_output = False
        elif not is_output:
            lines.append(line)
    return "\n".join(lines) + "\n"


class Script:
    """One scenario's cluster, and its commands."""

    def __init__(self) -> None:
        self.cluster = GossipCluster(seed=1)
        self._commands: dict[str, Callable[[list[str]], list[str]]] = {
            "start": self._start,
            "run": self._run,
            "crash": self._crash,
            "pause": self._pause,
            "resume": self._resume,
            "leave": self._leave,
            "cut": self._cut,
            "heal": self._heal,
            "loss": self._loss,
            "publish": self._publish,
            "members": self._members,
            "evidence": self._evidence,
            "service": self._service,
            "until": self._until,
        }

    def run(self, line: str) -> list[str]:
        """Carry out a command; return its output."""
        name, *arguments = line.split()
        assert name in self._commands, f"there is no command {name}"
        return self._commands[name](arguments)

    def _start(self, names: list[str]) -> list[str]:
        for name in names:
            self.cluster.start(name)
        return []

    def _run(self, arguments: list[str]) -> list[str]:
        self.cluster.world.run_for(float(arguments[0]))
        return []

    def _crash(self, names: list[str]) -> list[str]:
        for name in names:
            self.cluster.world.crash(self.cluster.host(name))
        return []

    def _pause(self, names: list[str]) -> list[str]:
        for name in names:
            self.cluster.world.pause(self.cluster.host(name))
        return []

    def _resume(self, names: list[str]) -> list[str]:
        for name in names:
            self.cluster.world.resume(self.cluster.host(name))
        return []

    def _leave(self, names: list[str]) -> list[str]:
        for name in names:
            self.cluster.command(name, Leave())
        return []

    def _cut(self, arguments: list[str]) -> list[str]:
        arrow = "<->" if "<->" in arguments else "->"
        at = arguments.index(arrow)
        senders = [self.cluster.host(name) for name in arguments[:at]]
        receivers = [self.cluster.host(name) for name in arguments[at + 1 :]]
        self.cluster.world.cut(senders, receivers)
        if arrow == "<->":
            self.cluster.world.cut(receivers, senders)
        return []

    def _heal(self, _: list[str]) -> list[str]:
        self.cluster.world.heal()
        return []

    def _loss(self, arguments: list[str]) -> list[str]:
        self.cluster.world.quality = LinkQuality(loss=float(arguments[0]))
        return []

    def _publish(self, arguments: list[str]) -> list[str]:
        name, service, *slots = arguments
        key = ServiceKey("shop", service)
        fact = service_fact(name, *map(int, slots), service=key)
        self.cluster.command(name, PublishFact(service_fact_name(key), fact.value))
        return []

    def _members(self, _: list[str]) -> list[str]:
        lines = []
        for observer in self.cluster.running():
            view = self.cluster.view(observer)
            known = sorted(view.members(), key=lambda member: member.name)
            held = [f"{m.name} {m.state.name} {m.life}.{m.incarnation}" for m in known]
            lines.append(f"{observer}: {', '.join(held)}")
        return lines

    def _evidence(self, arguments: list[str]) -> list[str]:
        target, now_s = node_id_of(arguments[0]), self.cluster.world.now_s
        lines = []
        for observer in self.cluster.running():
            told = self.cluster.core(observer).evidence(now_s)
            reaches = [
                f"{each.reach.name} for {each.since_s:.0f} s"
                for each in told
                if each.target == target
            ]
            lines.append(f"{observer}: {', '.join(reaches) or 'nothing'}")
        return lines

    def _service(self, arguments: list[str]) -> list[str]:
        key = ServiceKey("shop", arguments[0])
        lines = []
        for observer in self.cluster.running():
            view = self.cluster.view(observer)
            found = []
            for endpoint in view.endpoints(key):
                member = view.member(endpoint.node_id)
                assert member is not None
                slot = endpoint.endpoint.slot.slot
                found.append(f"{slot} on {member.name} ({endpoint.member_state.name})")
            lines.append(f"{observer}: {', '.join(found) or 'nothing'}")
        return lines

    def _until(self, arguments: list[str]) -> list[str]:
        observer, name, state, limit = arguments
        observer = observer.removesuffix(":")

        def holds() -> bool:
            member = self.cluster.view(observer).member(node_id_of(name))
            return member is not None and member.state.name == state

        if self.cluster.world.run_until_true(holds, float(limit)):
            return []
        return [f"not within {limit} s"]
