"""What runs as one gossip daemon in a benchmark? The product's core and driver, and nothing else.

`python -m benchmarks.gossip.agent --name N --bind IP:PORT [--join IP:PORT]` prints one JSON line
for each change of a member and each fact that arrives; a line on its input publishes a fact. It
runs as the product does: sealed, with the default parameters, and with its priority raised.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import sys
import time

from dray.addresses import parse_host_port
from dray.model import FactKey, GossipKey
from dray.names import ClusterId, NodeId, id_text
from node.gossip import sockets
from node.gossip.core import Address, Effect, Join, MemberChanged, PublishFact, ViewChanged
from node.gossip.driver import Driver
from node.gossip.identity import Identity
from node.gossip.parameters import Parameters
from node.gossip.sealing import Sealer
from node.gossip.swim import SwimCore

CLUSTER = ClusterId(id_text(bytes(range(16))))
KEY = GossipKey(1, bytes(range(32)), primary=True)
FACT = "node:benchmark"


def say(event: str, member: str) -> None:
    """Print one event."""
    sys.stdout.write(json.dumps({"event": event, "member": member}) + "\n")
    sys.stdout.flush()


class Agent:
    """One daemon."""

    def __init__(self, name: str, address: Address, seeds: tuple[Address, ...]) -> None:
        node_id = NodeId(id_text(hashlib.sha256(name.encode()).digest()[:16]))
        identity = Identity(CLUSTER, node_id, name, address, int(time.time()))
        self.core = SwimCore(identity, Parameters(), random.Random(f"{name}/{time.time_ns()}"))
        bound = sockets.bind(address, is_sealed=True)
        self.driver = Driver(self.core, bound, self.tell, Sealer(CLUSTER, [KEY]))
        self.driver.handle(Join(seeds))

    def tell(self, effect: Effect) -> None:
        """Print what became of a member or fact."""
        if isinstance(effect, MemberChanged):
            say(effect.after.state.name.lower(), effect.after.name)
        elif isinstance(effect, ViewChanged):
            for key in effect.keys:
                self.tell_fact(key)

    def tell_fact(self, key: FactKey) -> None:
        """Print a fact of the benchmark."""
        fact = self.core.view().fact(key)
        if key.name == FACT and fact is not None and fact.value is not None:
            say("fact", fact.value.decode())

    def on_input(self) -> None:
        """Publish what is written to the daemon's input."""
        line = sys.stdin.readline().strip()
        if line:
            self.driver.handle(PublishFact(FACT, line.encode()))


async def run(name: str, address: Address, seeds: tuple[Address, ...]) -> None:
    """Run a daemon until it is killed."""
    agent = Agent(name, address, seeds)
    asyncio.get_running_loop().add_reader(sys.stdin, agent.on_input)
    say("ready", name)
    await asyncio.Event().wait()


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--bind", required=True)
    parser.add_argument("--join", action="append", default=[])
    arguments = parser.parse_args()
    bind, *seeds = (parse_host_port(text) for text in (arguments.bind, *arguments.join))
    sockets.raise_priority(is_alone=False)  # as the daemon's gossip thread
    places = [Address(one.host, one.port) for one in (bind, *seeds)]
    asyncio.run(run(arguments.name, places[0], tuple(places[1:])))


if __name__ == "__main__":
    main()
