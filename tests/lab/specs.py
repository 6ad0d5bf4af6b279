"""What does the lab tell its helper program (inside.py)? The JSON documents, as types."""

from typing import TypedDict


class CgroupMount(TypedDict):
    """One cgroup hierarchy as a host shall see it."""

    point: str
    fstype: str
    options: str


class HostSpec(TypedDict):
    """Everything the first process of a host needs to build the host around itself."""

    name: str
    directory: str
    cgroup_roots: list[str]
    cgroup_leaves: list[str]
    cgroup_mounts: list[CgroupMount]
    cgroup_links: dict[str, str]
    ip_forward: bool
    boot_id: str
    commands: list[list[str]]
    engine: list[str]
    path: str


class SwitchSpec(TypedDict):
    """Everything the process that holds the switch's network namespace needs."""

    cgroups: list[str]
    sysctls: dict[str, str]


class RunSpec(TypedDict):
    """One program to run, where, and whose death ends it."""

    argv: list[str]
    cwd: str
    cgroups: list[str]
    target_pid: int
    namespaces: list[str]
    owner_pid: int
    session: bool
