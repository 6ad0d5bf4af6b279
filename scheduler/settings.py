"""Which settings does the scheduler have?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, SecretStr, model_validator

from dray.addresses import HostPort
from dray.errors import InvalidRequest
from dray.settings import (
    AddressAndPort,
    DaemonSettings,
    DurationS,
    FilePath,
    Flag,
    Labels,
    Urls,
    relation_error,
)
from scheduler.node_classes import node_classes
from scheduler.placement import PlacementRules

__all__ = ["SchedulerSettings"]


class SchedulerSettings(DaemonSettings):
    """Run a scheduler: it serves the API, and leads the cluster when it is elected."""

    program: ClassVar[str] = "scheduler"

    etcd: Urls = Field(
        description="Client URLs of etcd, all members of one cluster. With one of three named, "
        "dray stops when that one does."
    )
    listen: AddressAndPort = Field(
        description="Where to serve the API and the nodes. Beyond loopback it needs TLS or "
        "--insecure."
    )
    advertise: AddressAndPort = Field(
        description="Where nodes, users and other schedulers reach this one. Danger: an address "
        "that only this machine knows makes a leader that nobody finds."
    )
    data_dir: Annotated[FilePath, Flag("--data", "DIR")] = Field(
        Path("/var/lib/dray/scheduler"),
        description="Folder of what survives a restart: this scheduler's id and the highest epoch "
        "that it has seen.",
    )
    lease_ttl_s: DurationS = Field(
        5.0,
        ge=2.0,
        le=60.0,
        description="How long the leader key outlives a leader that fell silent, 2 s to 60 s. "
        "Shorter fails over sooner; below 3 s a busy disk of etcd's deposes healthy leaders.",
    )
    etcd_user: str = Field("", max_length=256, description="User of etcd; empty: none.")
    etcd_password: SecretStr = Field(
        SecretStr(""), description="Password of etcd_user. Not a flag: command lines are public."
    )
    etcd_cert: FilePath | None = Field(
        None,
        description="Client certificate for etcd (PEM); none where etcd asks for none "
        "(no --client-cert-auth).",
    )
    etcd_key: FilePath | None = Field(None, description="Private key of etcd_cert (PEM).")
    etcd_ca: FilePath | None = Field(
        None, description="Authority of etcd's certificates (PEM); needed with https URLs."
    )
    secrets_key: FilePath | None = Field(
        None,
        description="File of 32 random bytes that secrets are sealed with in etcd; the same for "
        "all schedulers, kept apart from backups of etcd. Without it they are stored as they are. "
        "Danger: without the file that sealed them they are lost.",
    )
    metrics_listen: AddressAndPort = Field(
        HostPort("127.0.0.1", 7402),
        description="Where Prometheus reads metrics, without TLS. They hold names of projects and "
        "nodes: beyond loopback, keep strangers off the port.",
    )

    node_classes: Annotated[Labels, Flag("--node-class", "NAME=RULES", is_repeated=True)] = Field(
        (),
        description="How nodes whose label class is NAME are used, the same for all schedulers: "
        '"cpu:200% memory:120% reserve_cpus:0.5 reserve_memory:1g". cpu and memory say how much of '
        "what is left after the reserve is given out, 100% to 1000%. Danger: what is overcommitted "
        "can run out; with memory, the kernel then kills containers.",
    )
    preempt_across_projects: bool = Field(
        False,
        description="Whether a service with x-dray.preempt may displace tasks of lower priority "
        "of other projects too. Danger: any project can then claim the highest priority.",
    )

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        try:
            node_classes(self.node_classes)
        except InvalidRequest as error:
            raise relation_error(("node_classes",), str(error)) from error
        if self.advertise.port == 0:
            raise relation_error(("advertise",), "advertise needs the port that others connect to")
        if self.advertise.host in ("0.0.0.0", "::"):  # noqa: S104  (refused, not bound)
            raise relation_error(("advertise",), f"nobody can connect to {self.advertise}")
        own = ("etcd_cert", "etcd_key")
        if bool(self.etcd_cert) != bool(self.etcd_key):
            raise relation_error(own, "etcd_cert and etcd_key go together")
        if self.etcd_cert and not self.etcd_ca:
            raise relation_error((*own, "etcd_ca"), "etcd with TLS needs its authority, etcd_ca")
        if bool(self.etcd_ca) != self.etcd[0].is_tls:
            raise relation_error(("etcd", "etcd_ca"), "https URLs and etcd_ca go together")
        if bool(self.etcd_user) != bool(self.etcd_password.get_secret_value()):
            raise relation_error(
                ("etcd_user", "etcd_password"), "etcd_user and etcd_password go together"
            )
        return self

    @property
    def placement_rules(self) -> PlacementRules:
        """What these settings say to placement."""
        return PlacementRules(
            classes=node_classes(self.node_classes),
            preempts_across_projects=self.preempt_across_projects,
        )
