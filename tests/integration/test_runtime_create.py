"""Does a real engine show every field of a create body again, as it was told?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import docker
import docker.errors
import docker.types

from dray.model import (
    BindOptions,
    ContainerSpec,
    DeviceMapping,
    EnvVar,
    FileMount,
    Healthcheck,
    HealthcheckKind,
    ImageOptions,
    Logging,
    Mount,
    MountKind,
    ResourceLimits,
    Security,
    SlotKey,
    TmpfsOptions,
    Ulimit,
    VolumeOptions,
)
from dray.names import TaskId, id_text
from node.runtime.base import (
    ContainerIdentity,
    ContainerNetwork,
    ContainerRequest,
    ContainerState,
    HostPort,
    Refused,
    VolumeRequest,
)
from node.runtime.docker_calls import create_container
from node.runtime.spec import CreateBody, create_body
from tests.contract.runtime.rig import IMAGE, DockerRig, running
from tests.unit.node.runtime.spec_rows import ROWS
from tests.unit.node.runtime.test_spec import made


def maximal_spec(volume: str) -> ContainerSpec:
    """Return a spec that says everything this engine can be told."""
    return ContainerSpec(
        image=ImageOptions(IMAGE, platform="linux/amd64"),
        entrypoint=("sh", "-c"),
        command=("sleep 1000",),
        environment=(EnvVar("A", "1"), EnvVar("PATH", "/bin:/sbin")),
        user="65534:65534",
        group_add=("5",),
        working_dir="/root",
        domainname="example.org",
        labels=(("org.example.team", "web"),),
        init=True,
        tty=True,
        stdin_open=True,
        stop_signal="SIGINT",
        stop_grace_s=7.5,
        mounts=(
            Mount(MountKind.BIND, "/var/lib/made", "/made", bind=BindOptions("rprivate")),
            Mount(
                MountKind.BIND,
                "/etc/hostname",
                "/name",
                read_only=True,
                bind=BindOptions(create_host_path=False, recursive="disabled"),
            ),
            Mount(MountKind.VOLUME, volume, "/data", volume=VolumeOptions(nocopy=True)),
            Mount(MountKind.VOLUME, "", "/own", volume=VolumeOptions(labels=(("a", "b"),))),
            Mount(
                MountKind.TMPFS,
                "",
                "/scratch",
                tmpfs=TmpfsOptions(size_bytes=2**20, mode=0o700, options=("exec",)),
            ),
        ),
        configs=(FileMount("config", "/config"),),
        devices=(DeviceMapping("/dev/null", "/dev/nothing", "rw"),),
        healthcheck=Healthcheck(HealthcheckKind.SHELL, ("test -d /root",), 10.0, 2.5, 1.0, None, 4),
        logging=Logging("json-file", (("max-file", "2"), ("max-size", "1m"))),
        dns=("192.0.2.53",),
        dns_search=("example.org",),
        dns_opt=("ndots:1",),
        extra_hosts=(("db", "192.0.2.7"),),
        security=Security(
            read_only=True,
            cap_add=("NET_ADMIN",),
            cap_drop=("MKNOD",),
            security_opt=("no-new-privileges", "systempaths=unconfined"),
            ipc_mode="private",
            cgroup_mode="private",
            device_cgroup_rules=("c 1:3 rm",),
            sysctls=(("net.ipv4.ip_unprivileged_port_start", "0"),),
        ),
        limits=ResourceLimits(
            cpu_millis=1500,
            memory_bytes=64 * 2**20,
            pids=77,
            memory_swap_bytes=128 * 2**20,
            cpu_shares=512,
            cpuset="0",
            shm_size_bytes=2**20,
            oom_score_adj=100,
            ulimits=(Ulimit("nofile", 100, 200),),
        ),
        runtime="runc",
        isolation="default",
    )


def maximal_request(rig: DockerRig, volume: str, network: str) -> ContainerRequest:
    """Return a request for it, on a network with an address and ports."""
    identity = ContainerIdentity(
        rig.cluster_id, TaskId(id_text(b"m" * 16)), 3, SlotKey("shop", "web", 1)
    )
    attached = ContainerNetwork(
        network,
        ipv4_address="10.201.7.77",
        mac_address="02:00:00:00:07:77",
        resolv_conf="/etc/resolv.conf",
        ports=(HostPort(80, 18080), HostPort(53, 18053, "udp", "127.0.0.1")),
    )
    return ContainerRequest(
        rig.name(),
        identity,
        maximal_spec(volume),
        attached,
        files=(("/etc/passwd", "/config"),),
        hostname="web-1",
        environment=(("DRAY_SLOT", "1"),),
    )


def _unlike(told: Any, shown: Any, path: str) -> Iterator[str]:
    """Yield where what the engine shows does not contain what it was told."""
    if isinstance(told, Mapping):
        if not isinstance(shown, Mapping):
            yield f"{path}: told {told}, shown {shown}"
            return
        for key, value in told.items():
            yield from _unlike(value, shown.get(key), f"{path}.{key}")
    elif isinstance(told, list | tuple) and isinstance(shown, list):
        if len(told) != len(shown):
            yield f"{path}: told {told}, shown {shown}"
        for position, (one, other) in enumerate(zip(told, shown, strict=False)):
            yield from _unlike(one, other, f"{path}[{position}]")
    elif told != shown:
        yield f"{path}: told {told!r}, shown {shown!r}"


def _as_shown(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the create body in the form in which the engine shows it again."""
    host = body["HostConfig"]
    config = {k: v for k, v in body.items() if k not in ("HostConfig", "NetworkingConfig")}
    # Of the environment the engine keeps that of the image as well; it is compared apart.
    config.pop("Env")
    networks = body["NetworkingConfig"]["EndpointsConfig"]
    return {"Config": config, "HostConfig": host, "NetworkSettings": {"Networks": networks}}


async def test_the_engine_shows_all_that_it_was_told(rig: DockerRig, network: str) -> None:
    """A container of a maximal spec shows every field again, and runs with it."""
    async with rig.runtime() as runtime:
        volume = rig.name()
        assert await runtime.ensure_volume(VolumeRequest(volume)) is None
        request = maximal_request(rig, volume, network)
        container_id = await running(runtime, request)
        shown = await asyncio.to_thread(rig.host.docker.api.inspect_container, container_id)
        made = create_body(request)
        assert isinstance(made, CreateBody)
        assert list(_unlike(_as_shown(made.body), shown, "")) == []
        assert {"DRAY_SLOT=1", "A=1", "PATH=/bin:/sbin"} <= set(shown["Config"]["Env"])
        found = await runtime.inspect(container_id)
        assert found is not None
        assert (found.state, found.ipv4_address) == (ContainerState.RUNNING, "10.201.7.77")


# Of these fields a row cannot be shown by an engine here. Those that a spec says usually are in the
# maximal spec above, with a value that can.
NOT_SHOWN = {
    "image": "there is no such image here",
    "image.reference": "there is no such image here",
    "image.platform": "there is no such image here",
    "entrypoint": "one that is cleared leaves nothing to run",
    "mounts.image_subpath": "images are mounted by engines with containerd's image store only",
    "limits.pids": "the engine shows no limit as none",
    "limits.storage_opt": "only on xfs with quotas",
    "limits.blkio.weight": "the kernel does not weigh",
    "limits.blkio.weight_device": "the kernel does not weigh",
    "runtime": "there is no such runtime here",
    "devices.source": "the engine knows no device of that name",
}


def _place(shown: Mapping[str, Any], where: tuple[str, ...]) -> Any:
    """Return what the engine shows where a create body says something."""
    place: Any = shown if where[0] == "HostConfig" else shown["Config"]
    keys = where
    if where[0] == "NetworkingConfig":
        place, keys = shown["NetworkSettings"]["Networks"], where[2:]
    for key in keys:
        place = (place or {}).get(key)
    return place


def _on_this_host(value: Any, volume: str) -> Any:
    """Return a value of the table with a volume and paths that this host has."""
    if isinstance(value, Mapping):
        return {key: _on_this_host(each, volume) for key, each in value.items()}
    if isinstance(value, list):
        return [_on_this_host(each, volume) for each in value]
    if isinstance(value, str) and value.startswith("/n/"):
        return "/etc/hostname"
    return {"/s": "/etc", "v": volume}.get(value, value) if isinstance(value, str) else value


def test_every_field_is_shown_again_by_the_engine(rig: DockerRig) -> None:
    """Each row of the table of `test_spec` that it is new enough for is shown as it was told."""
    wrong: dict[str, str] = {}
    seen: set[str] = set()
    volume = rig.name()
    rig.host.docker.api.create_volume(volume)
    newest = tuple(map(int, rig.host.docker.api.version()["ApiVersion"].split(".")))
    rows = [row for row in ROWS if row.where and row.api <= newest]
    clients = {
        version: docker.APIClient(base_url=rig.host.docker_url, version="{}.{}".format(*version))
        for version in {row.api for row in rows}
    }
    for number, row in enumerate(rows):
        api, body = clients[row.api], made(row)
        assert isinstance(body, CreateBody)
        told, value = (_on_this_host(each, volume) for each in (body.body, row.told))
        if row.where != ("Image",):
            told["Image"] = IMAGE
        name = f"{rig.name()}-{number}"
        try:
            answer = create_container(api, told, name, None)
            shown = api.inspect_container(answer["Id"])
            api.remove_container(answer["Id"], v=True, force=True)
        except docker.errors.APIError as error:
            wrong[row.path] = str(error.explanation)
            continue
        place = _place(shown, row.where)
        if row.where == ("Env",):  # that of the image is shown too
            place = [each for each in place if each in value]
        if unlike := list(_unlike(value, place, row.path)):
            wrong[row.path] = "; ".join(unlike)
        else:
            seen.add(row.path)
    for client in clients.values():
        client.close()
    unexpected = {path: why for path, why in wrong.items() if path not in NOT_SHOWN}
    assert not unexpected, "\n".join(f"{path}: {why}" for path, why in unexpected.items())
    assert len(seen) > 70, seen


async def test_an_empty_command_is_not_the_images(rig: DockerRig) -> None:
    """Clearing the command leaves the image's entry point, here none: so nothing to run."""
    async with rig.runtime() as runtime:
        identity = rig.request().identity
        cleared = ContainerSpec(ImageOptions(IMAGE), command=())
        refused = await runtime.create(ContainerRequest(rig.name(), identity, cleared))
        assert isinstance(refused, Refused)
        assert "No command" in refused.message
