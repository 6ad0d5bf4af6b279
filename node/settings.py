"""Which settings does the node daemon have?"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from dray.addresses import HostPort, is_ip
from dray.errors import InvalidRequest
from dray.names import check_label
from dray.settings import (
    Address,
    AddressAndPort,
    AddressesAndPorts,
    DaemonSettings,
    DurationS,
    FilePath,
    Flag,
    Labels,
    SizeBytes,
    relation_error,
)

__all__ = ["NodeSettings"]


def _node_name(name: str) -> str:
    try:
        return check_label(name, "node")
    except InvalidRequest as error:
        raise ValueError(str(error)) from error


class NodeSettings(DaemonSettings):
    """Run the node daemon: it keeps this machine's share of the cluster running."""

    program: ClassVar[str] = "node"

    scheduler: AddressesAndPorts = Field(
        description="Schedulers to find the leader through. Name all of them: with one, this node "
        "cannot join while that one is away."
    )
    name: Annotated[str, AfterValidator(_node_name)] = Field(
        description="Name of this node, a DNS label, one per cluster."
    )
    advertise: Annotated[Address, Flag(metavar="ADDR")] = Field(
        description="IP address at which other nodes reach this one, for gossip and containers. "
        "Danger: one behind NAT makes a node that others hold to be down."
    )
    data_dir: Annotated[FilePath, Flag("--data", "DIR")] = Field(
        Path("/var/lib/dray/node"),
        description="Folder of what survives a restart: identity, life, assignment, gossip key. "
        "Losing it makes this machine a new node.",
    )
    labels: Labels = Field(
        (), description="Label for placement, K=V; repeat the flag for more. At most 100."
    )
    docker_host: str = Field(
        "unix:///run/docker.sock",
        pattern=r"^unix:///.+$",
        description="Socket of the Docker Engine that runs the containers, on this machine.",
    )
    gossip_port: int = Field(
        7401,
        ge=1,
        le=65_535,
        description="UDP and TCP port of gossip, on the advertised address; the same on all nodes. "
        "Open it between nodes, and to nobody else.",
    )
    restart_wait_s: DurationS = Field(
        10.0,
        ge=0.0,
        le=600.0,
        description="How long after its start the daemon waits for a leader before it starts from "
        "disk what ran last. Shorter risks running what was moved away meanwhile.",
    )
    run_dir: FilePath = Field(
        Path("/run/dray"),
        description="Folder in memory of secrets, which never reach a disk. A folder on a disk "
        "leaves them there after a power cut.",
    )
    reserve_cpu_millis: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Thousandths of a CPU that tasks never get; by default 2 % of the machine. "
        "Less lets tasks starve the daemon and Docker.",
    )
    reserve_memory: SizeBytes | None = Field(
        None,
        description="Memory that tasks never get, such as 512MiB; by default 5 % of the machine. "
        "Less lets tasks push the daemon and Docker out of memory.",
    )
    drain_on_stop_s: DurationS = Field(
        0.0,
        ge=0.0,
        le=3_600.0,
        description="How long tasks get to move away when the daemon is told to stop. 0 leaves "
        "them running for the next daemon; more is for machines that are switched off.",
    )
    metrics_listen: AddressAndPort = Field(
        HostPort("127.0.0.1", 7403),
        description="Where Prometheus reads metrics, without TLS. They hold names of projects and "
        "services: beyond loopback, keep strangers off the port.",
    )

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        if not is_ip(self.advertise):
            raise relation_error(("advertise",), f"{self.advertise!r} is not an IP address")
        if ipaddress.ip_address(self.advertise).is_unspecified:
            raise relation_error(("advertise",), f"nobody can connect to {self.advertise}")
        return self
