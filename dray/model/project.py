"""What was asked as a whole: one Compose file's content under one name."""

from __future__ import annotations

from dataclasses import dataclass

from dray.model.extensions import PackingPolicy
from dray.model.service import ServiceSpec
from dray.model.values import StringMap

__all__ = [
    "ConfigSpec",
    "IpamPool",
    "NetworkSpec",
    "ProjectSpec",
    "SecretSpec",
    "VolumeSpec",
]


@dataclass(frozen=True, slots=True)
class IpamPool:
    """A range that the file names for a network.

    Attributes:
        subnet: The range, CIDR.
        ip_range: The part of it that addresses are given out from, CIDR; empty: all of it.
        gateway: The gateway's address; empty: the first one.
        aux_addresses: Reserved addresses by name.
    """

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    aux_addresses: StringMap = ()


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A network of the project: services that share one resolve and reach each other.

    Attributes:
        key: The key under `networks:`.
        name: Its full name in the cluster; an external one is looked up by it.
        external: Made by another project or by the operator, never made or removed by this one.
        internal: No way out of the cluster.
        attachable: Whether containers that dray does not run may join.
        driver: As the file says it; empty: dray's own.
        driver_opts: Options of the driver.
        ipam_driver: As the file says it; empty: dray's own.
        ipam_pools: Ranges that the file names.
        enable_ipv4: None: yes.
        enable_ipv6: None: as the cluster has it.
        labels: Labels of the network.
    """

    key: str
    name: str
    external: bool = False
    internal: bool = False
    attachable: bool = False
    driver: str = ""
    driver_opts: StringMap = ()
    ipam_driver: str = ""
    ipam_pools: tuple[IpamPool, ...] = ()
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    labels: StringMap = ()


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A named volume of the project.

    It is made on the node that first needs it and pins its service there.

    Attributes:
        key: The key under `volumes:`.
        name: Name of the Docker volume.
        external: It must exist; never made or removed by this project.
        driver: Volume driver; empty: "local".
        driver_opts: Options of the driver.
        labels: Labels of the volume.
    """

    key: str
    name: str
    external: bool = False
    driver: str = ""
    driver_opts: StringMap = ()
    labels: StringMap = ()


@dataclass(frozen=True, slots=True)
class ConfigSpec:
    """Content that services mount as files. Read when the file is loaded; kept by digest.

    Attributes:
        key: The key under `configs:`.
        name: Its full name in the cluster.
        external: It must exist in the cluster already; `content` is empty.
        content: The bytes, at most 500 kB (Docker's limit of a config).
        labels: Labels of the config.
        template_driver: "golang" to fill in placeholders; empty: none.
    """

    key: str
    name: str
    external: bool = False
    content: bytes = b""
    labels: StringMap = ()
    template_driver: str = ""


@dataclass(frozen=True, slots=True)
class SecretSpec:
    """Like a config, but sealed in the store.

    Delivered only to nodes that run a task that uses it, never shown.

    Attributes:
        key: The key under `secrets:`.
        name: Its full name in the cluster.
        external: It must exist in the cluster already; `content` is empty.
        content: The bytes, at most 500 kB; not part of `repr`.
        labels: Labels of the secret.
        driver: External secret driver; empty: dray's own.
        driver_opts: Options of the driver.
        template_driver: "golang" to fill in placeholders; empty: none.
    """

    key: str
    name: str
    external: bool = False
    content: bytes = b""
    labels: StringMap = ()
    driver: str = ""
    driver_opts: StringMap = ()
    template_driver: str = ""

    def __repr__(self) -> str:
        """Return the secret's name and size, never its content."""
        return (
            f"SecretSpec(key={self.key!r}, name={self.name!r}, content=<{len(self.content)} bytes>)"
        )


@dataclass(frozen=True, slots=True)
class ProjectSpec:
    """One Compose file's content.

    Attributes:
        name: The project's name: a DNS label.
        services: Sorted by name.
        networks: Sorted by key.
        volumes: Sorted by key.
        configs: Sorted by key.
        secrets: Sorted by key.
        policy: How its services are packed when they do not say (`x-dray: {policy: …}` at the top).
        gang: Place all of it or nothing (`x-dray: {gang: true}`).
        labels: Labels of the project (`x-dray: {labels: …}`).
    """

    name: str
    services: tuple[ServiceSpec, ...] = ()
    networks: tuple[NetworkSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()
    configs: tuple[ConfigSpec, ...] = ()
    secrets: tuple[SecretSpec, ...] = ()
    policy: PackingPolicy = PackingPolicy.INHERIT
    gang: bool = False
    labels: StringMap = ()
