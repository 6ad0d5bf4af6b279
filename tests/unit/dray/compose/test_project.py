"""What does the conversion make of each part of a service and of a project?"""

from __future__ import annotations

import time
from typing import Any

import pytest

from dray.api.v1.spec_pb2 import ProjectSpec as ProjectMessage
from dray.compose.place import Path
from dray.convert import from_proto, to_proto
from dray.model import (
    BindOptions,
    BlkioDeviceRate,
    ConfigSpec,
    ConstraintOp,
    Dependency,
    DependencyCondition,
    DeviceMapping,
    DeviceRequest,
    EndpointMode,
    EnvVar,
    FailureAction,
    FileMount,
    GenericResource,
    GpuRequest,
    Healthcheck,
    HealthcheckKind,
    Hook,
    IpamPool,
    Link,
    Logging,
    Mount,
    MountKind,
    NetworkAttachment,
    NetworkMode,
    NetworkSpec,
    PlacementConstraint,
    PortProtocol,
    ProjectSpec,
    PublishedPort,
    PublishMode,
    PullPolicy,
    ResourceLimits,
    RestartCondition,
    RestartPolicy,
    SecretSpec,
    ServiceMode,
    ServiceModeKind,
    TmpfsOptions,
    Ulimit,
    UpdateOrder,
    UpdatePolicy,
    VolumeOptions,
    VolumeSpec,
)
from tests.compose_views import a_config, project_of, service_of

GIB = 1024**3


def test_a_bare_service_has_dockers_and_swarms_defaults() -> None:
    """One image is one replica, restarted always, with ten seconds to stop, updated one by one."""
    spec = service_of({})
    container = spec.task.container
    assert (container.image.reference, container.image.pull_policy) == ("nginx", PullPolicy.MISSING)
    assert (container.command, container.entrypoint, container.healthcheck) == (None, None, None)
    assert container.stop_grace_s == 10.0
    assert spec.mode == ServiceMode(ServiceModeKind.REPLICATED, 1)
    assert spec.task.restart == RestartPolicy(RestartCondition.ANY, 5.0, None, 0.0)
    assert spec.update == spec.rollback == UpdatePolicy(monitor_s=5.0)
    assert spec.endpoint_mode is EndpointMode.VIP


def test_the_container() -> None:
    """Command, environment, identity and privileges arrive as they were said."""
    container = service_of(
        {
            "command": ["serve", "--fast"],
            "entrypoint": [],
            "environment": {"B": "2", "A": "1", "GONE": None},
            "user": "1000:1000",
            "group_add": ["audio", 44],
            "working_dir": "/srv",
            "hostname": "web",
            "domainname": "example.org",
            "labels": {"tier": "front"},
            "annotations": {"note": "x"},
            "init": True,
            "tty": True,
            "stdin_open": True,
            "stop_signal": "SIGQUIT",
            "stop_grace_period": "1m30s",
            "dns": ["9.9.9.9"],
            "dns_search": ["example.org"],
            "dns_opt": ["ndots:2"],
            "extra_hosts": ["db=10.0.0.2", "v6=[fd00::1]"],
            "logging": {"driver": "json-file", "options": {"max-size": "10m"}},
            "runtime": "runsc",
            "platform": "linux/arm64",
            "pull_policy": "every_12h",
        }
    ).task.container
    assert container.command == ("serve", "--fast")
    assert container.entrypoint == ()
    assert container.environment == (EnvVar("A", "1"), EnvVar("B", "2"), EnvVar("GONE", None))
    assert (container.user, container.group_add) == ("1000:1000", ("audio", "44"))
    assert (container.hostname, container.domainname) == ("web", "example.org")
    assert container.labels == (("tier", "front"),)
    assert container.annotations == (("note", "x"),)
    assert (container.init, container.tty, container.stdin_open) == (True, True, True)
    assert (container.stop_signal, container.stop_grace_s) == ("SIGQUIT", 90.0)
    assert container.extra_hosts == (("db", "10.0.0.2"), ("v6", "fd00::1"))
    assert (container.dns, container.dns_search) == (("9.9.9.9",), ("example.org",))
    assert container.logging == Logging("json-file", (("max-size", "10m"),))
    assert container.image.platform == "linux/arm64"
    assert container.image.pull_policy is PullPolicy.REFRESH
    assert container.image.pull_refresh_after_s == 12 * 3600.0


def test_security() -> None:
    """Privileges and confinement arrive as they were said."""
    security = service_of(
        {
            "privileged": True,
            "read_only": True,
            "cap_add": ["NET_ADMIN"],
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "userns_mode": "host",
            "pid": "host",
            "ipc": "shareable",
            "uts": "host",
            "cgroup": "private",
            "cgroup_parent": "m",
            "device_cgroup_rules": ["c 1:3 mr"],
            "sysctls": {"net.core.somaxconn": 1024},
        }
    ).task.container.security
    assert (security.privileged, security.read_only) == (True, True)
    assert (security.cap_add, security.cap_drop) == (("NET_ADMIN",), ("ALL",))
    assert security.security_opt == ("no-new-privileges:true",)
    assert (security.pid_mode, security.ipc_mode, security.uts_mode) == (
        "host",
        "shareable",
        "host",
    )
    assert (security.cgroup_mode, security.cgroup_parent) == ("private", "m")
    assert security.sysctls == (("net.core.somaxconn", "1024"),)


def test_limits() -> None:
    """Limits arrive in the model's units; those under deploy win over the older keys."""
    limits = service_of(
        {
            "cpus": 4,
            "mem_limit": "1073741824",
            "memswap_limit": -1,
            "mem_swappiness": "60",
            "cpu_shares": 512,
            "cpu_period": "1400us",
            "cpu_quota": 50000,
            "cpuset": "0-3",
            "shm_size": "67108864",
            "oom_kill_disable": True,
            "oom_score_adj": -500,
            "pids_limit": 100,
            "storage_opt": {"size": "10G"},
            "ulimits": {"nproc": 65535, "nofile": {"soft": 10, "hard": 20}},
            "blkio_config": {
                "weight": 300,
                "device_read_bps": [{"Path": "/dev/sda", "Rate": "12582912"}],
                "weight_device": [{"path": "/dev/sda", "weight": 400}],
            },
            "deploy": {"resources": {"limits": {"cpus": 0.5, "pids": 50}}},
        }
    ).task.container.limits
    assert isinstance(limits, ResourceLimits)
    assert (limits.cpu_millis, limits.memory_bytes, limits.pids) == (500, GIB, 50)
    assert (limits.memory_swap_bytes, limits.memory_swappiness) == (-1, 60)
    assert (limits.cpu_period_us, limits.cpu_quota_us) == (1400, 50_000)
    assert limits.shm_size_bytes == 64 * 1024**2
    assert (limits.oom_kill_disable, limits.oom_score_adj) == (True, -500)
    assert limits.ulimits == (Ulimit("nofile", 10, 20), Ulimit("nproc", 65535, 65535))
    assert limits.blkio is not None
    assert limits.blkio.read_bps == (BlkioDeviceRate("/dev/sda", 12_582_912),)
    assert limits.blkio.weight_device == (BlkioDeviceRate("/dev/sda", 400),)


def test_reservations_devices_and_gpus() -> None:
    """Reservations are counted; devices are counted as GPUs when they are asked to be some."""
    task = service_of(
        {
            "devices": [{"source": "/dev/kvm", "target": "/dev/kvm", "permissions": "rw"}],
            "gpus": [{"driver": "nvidia", "count": 2}],
            "deploy": {
                "resources": {
                    "limits": {"pids": 64},
                    "reservations": {
                        "cpus": "0.25",
                        "memory": "20971520",
                        "generic_resources": [
                            {"discrete_resource_spec": {"kind": "ssd", "value": 2}}
                        ],
                        "devices": [{"capabilities": ["tpu"], "device_ids": ["3"]}],
                    },
                }
            },
        }
    ).task
    told = task.reservations
    assert (told.cpu_millis, told.memory_bytes, told.pids) == (250, 20 * 1024**2, 64)
    assert told.generic == (GenericResource("ssd", 2),)
    assert told.gpu == GpuRequest(count=2)
    assert told.devices == (
        DeviceRequest("nvidia", 2, (), ("gpu",)),
        DeviceRequest("", 0, ("3",), ("tpu",)),
    )
    assert task.container.devices == (DeviceMapping("/dev/kvm", "/dev/kvm", "rw"),)


def test_mounts_in_the_files_order() -> None:
    """Every type of mount arrives with its options, and tmpfs after volumes."""
    found = service_of(
        {
            "volumes": [
                {
                    "type": "volume",
                    "source": "data",
                    "target": "/data",
                    "read_only": True,
                    "volume": {"nocopy": True, "subpath": "a"},
                },
                {
                    "type": "bind",
                    "source": "/srv",
                    "target": "/srv",
                    "bind": {"propagation": "rslave", "create_host_path": False, "selinux": "Z"},
                },
                {"type": "bind", "source": "/etc/x", "target": "/x", "bind": {}},
                {"type": "tmpfs", "target": "/t", "tmpfs": {"size": "1048576", "mode": "1770"}},
                {
                    "type": "image",
                    "source": "assets:1",
                    "target": "/i",
                    "image": {"subpath": "www"},
                },
            ],
            "tmpfs": ["/run", "/cache:size=64m,noexec"],
        },
        volumes={"data": {"name": "shop_data"}},
    ).task.container.mounts
    assert found == (
        Mount(
            MountKind.VOLUME,
            "data",
            "/data",
            read_only=True,
            volume=VolumeOptions(nocopy=True, subpath="a"),
        ),
        Mount(
            MountKind.BIND,
            "/srv",
            "/srv",
            bind=BindOptions("rslave", create_host_path=False, selinux="Z"),
        ),
        Mount(MountKind.BIND, "/etc/x", "/x", bind=BindOptions()),
        Mount(MountKind.TMPFS, "", "/t", tmpfs=TmpfsOptions(1024**2, 0o1770)),
        Mount(MountKind.IMAGE, "assets:1", "/i", image_subpath="www"),
        Mount(MountKind.TMPFS, "", "/run"),
        Mount(MountKind.TMPFS, "", "/cache", tmpfs=TmpfsOptions(options=("size=64m", "noexec"))),
    )


def test_configs_and_secrets_as_files() -> None:
    """A config without a target is at the root, a secret below /run/secrets; modes are octal."""
    container = service_of(
        {
            "configs": [{"source": "site"}, {"source": "x", "target": "/etc/x", "mode": "0440"}],
            "secrets": [{"source": "key"}, {"source": "pin", "target": "code", "uid": "5"}],
        }
    ).task.container
    assert container.configs == (
        FileMount("site", "/site"),
        FileMount("x", "/etc/x", mode=0o440),
    )
    assert container.secrets == (
        FileMount("key", "/run/secrets/key"),
        FileMount("pin", "/run/secrets/code", uid="5"),
    )


@pytest.mark.parametrize(
    ("told", "kind", "command"),
    [
        ({"test": ["CMD", "pg_isready"]}, HealthcheckKind.EXEC, ("pg_isready",)),
        ({"test": ["CMD-SHELL", "a || b"]}, HealthcheckKind.SHELL, ("a || b",)),
        ({"test": ["NONE"]}, HealthcheckKind.DISABLED, ()),
        ({"disable": True}, HealthcheckKind.DISABLED, ()),
        ({"interval": "3s"}, HealthcheckKind.INHERIT, ()),
    ],
    ids=["exec", "shell", "none", "disable", "inherit"],
)
def test_health_checks(
    told: dict[str, Any], kind: HealthcheckKind, command: tuple[str, ...]
) -> None:
    """Each form of a test is its kind, with its times."""
    check = service_of({"healthcheck": {**told, "retries": 3, "timeout": "500ms"}})
    found = check.task.container.healthcheck
    assert isinstance(found, Healthcheck)
    assert (found.kind, found.command) == (kind, command)
    assert (found.retries, found.timeout_s) == (3, 0.5)


def test_hooks() -> None:
    """Hooks arrive in order."""
    container = service_of(
        {
            "post_start": [{"command": ["a"], "user": "root", "privileged": True}],
            "pre_stop": [{"command": ["b"], "environment": {"X": "1"}, "working_dir": "/"}],
        }
    ).task.container
    assert container.post_start == (Hook(("a",), "root", privileged=True),)
    assert container.pre_stop == (Hook(("b",), working_dir="/", environment=(EnvVar("X", "1"),)),)


def test_networks_ports_and_names() -> None:
    """Attachments are sorted, ports written out, and the service's mac_address is its network's."""
    result = project_of(
        a_config(
            {
                "networks": {
                    "front": {"aliases": ["www"], "ipv4_address": "10.5.0.9", "priority": 10},
                    "back": None,
                },
                "mac_address": "02:42:ac:11:00:02",
                "links": ["db:sql", "cache"],
                "expose": ["9000"],
                "container_name": "web-1",
                "ports": [
                    {"target": 80, "published": "8080", "protocol": "tcp", "mode": "ingress"},
                    {"target": 53, "protocol": "udp", "mode": "host", "host_ip": "10.0.0.1"},
                    {"target": 90, "published": "9000-9010", "name": "m", "app_protocol": "http"},
                ],
            },
            networks={
                "front": {
                    "name": "shop_front",
                    "driver": "overlay",
                    "internal": True,
                    "ipam": {"config": [{"subnet": "10.5.0.0/24", "gateway": "10.5.0.1"}]},
                },
                "back": {"name": "common", "external": True},
            },
        )
    )
    assert not result.faults
    task = result.project.services[0].task
    assert task.networks == (
        NetworkAttachment("back"),
        NetworkAttachment(
            "front", ("www",), "10.5.0.9", priority=10, mac_address="02:42:ac:11:00:02"
        ),
    )
    assert task.links == (Link("db", "sql"), Link("cache", "cache"))
    assert (task.expose, task.container_name) == (("9000",), "web-1")
    assert result.project.services[0].ports == (
        PublishedPort(80, 8080),
        PublishedPort(53, 0, 0, PortProtocol.UDP, PublishMode.HOST, "10.0.0.1"),
        PublishedPort(90, 9000, 9010, name="m", app_protocol="http"),
    )
    assert result.project.networks == (
        NetworkSpec("back", "common", external=True),
        NetworkSpec(
            "front",
            "shop_front",
            internal=True,
            driver="overlay",
            ipam_pools=(IpamPool("10.5.0.0/24", gateway="10.5.0.1"),),
        ),
    )


@pytest.mark.parametrize(
    ("told", "mode", "target"),
    [
        ("host", NetworkMode.HOST, ""),
        ("none", NetworkMode.NONE, ""),
        ("service:db", NetworkMode.SERVICE, "db"),
    ],
    ids=["host", "none", "service"],
)
def test_network_modes(told: str, mode: NetworkMode, target: str) -> None:
    """A borrowed stack names its lender."""
    task = service_of({"network_mode": told}).task
    assert (task.network_mode, task.network_mode_target) == (mode, target)


def test_deploy() -> None:
    """Everything under deploy arrives."""
    spec = service_of(
        {
            "deploy": {
                "mode": "replicated",
                "replicas": 6,
                "endpoint_mode": "dnsrr",
                "labels": {"team": "web"},
                "update_config": {
                    "parallelism": 2,
                    "delay": "10s",
                    "failure_action": "rollback",
                    "monitor": "1m",
                    "max_failure_ratio": 0.25,
                    "order": "start-first",
                },
                "rollback_config": {"parallelism": 0, "failure_action": "continue"},
                "restart_policy": {
                    "condition": "on-failure",
                    "delay": "1s",
                    "max_attempts": 3,
                    "window": "2m",
                },
                "placement": {
                    "constraints": ["node.labels.disk == ssd", "node.role!=manager"],
                    "preferences": [{"spread": "node.labels.zone"}],
                    "max_replicas_per_node": 2,
                },
            },
            "restart": "always",
            "depends_on": {
                "db": {"condition": "service_healthy", "restart": True, "required": False}
            },
        }
    )
    assert spec.mode == ServiceMode(ServiceModeKind.REPLICATED, 6)
    assert spec.endpoint_mode is EndpointMode.DNSRR
    assert spec.labels == (("team", "web"),)
    assert spec.update == UpdatePolicy(
        2, 10.0, FailureAction.ROLLBACK, 60.0, 0.25, UpdateOrder.START_FIRST
    )
    assert spec.rollback == UpdatePolicy(0, failure_action=FailureAction.CONTINUE)
    assert spec.task.restart == RestartPolicy(RestartCondition.ON_FAILURE, 1.0, 3, 120.0)
    assert spec.placement.constraints == (
        PlacementConstraint("node.labels.disk", ConstraintOp.EQUAL, "ssd"),
        PlacementConstraint("node.role", ConstraintOp.NOT_EQUAL, "manager"),
    )
    assert spec.placement.spread_over == ("node.labels.zone",)
    assert spec.placement.replicas_per_node_max == 2
    assert spec.depends_on == (Dependency("db", DependencyCondition.HEALTHY, True, False),)


@pytest.mark.parametrize(
    ("told", "policy"),
    [
        ("no", RestartPolicy(RestartCondition.NONE)),
        ("always", RestartPolicy(RestartCondition.ANY)),
        ("unless-stopped", RestartPolicy(RestartCondition.UNLESS_STOPPED)),
        ("on-failure", RestartPolicy(RestartCondition.ON_FAILURE)),
        ("on-failure:4", RestartPolicy(RestartCondition.ON_FAILURE, attempts_max=4)),
    ],
    ids=["no", "always", "unless-stopped", "on-failure", "count"],
)
def test_the_older_restart(told: str, policy: RestartPolicy) -> None:
    """`restart` counts when there is no deploy.restart_policy."""
    assert service_of({"restart": told}).task.restart == policy


def test_modes_without_replicas() -> None:
    """A global service has no number; a job restarts on failure only; scale is replicas."""
    everywhere = service_of({"deploy": {"mode": "global"}})
    assert everywhere.mode == ServiceMode(ServiceModeKind.GLOBAL, 0)
    job = service_of({"deploy": {"mode": "replicated-job", "replicas": 3}})
    assert job.mode == ServiceMode(ServiceModeKind.REPLICATED_JOB, 3)
    assert job.task.restart.condition is RestartCondition.ON_FAILURE
    assert service_of({"scale": 4}).mode.replicas == 4


def test_volumes_configs_and_secrets_of_the_project() -> None:
    """They arrive sorted, named and with the content that the loader has read."""
    contents: dict[Path, bytes] = {
        ("configs", "site"): b"listen 80;",
        ("secrets", "key"): b"\x00secret",
    }
    result = project_of(
        a_config(
            {},
            volumes={
                "b": {"name": "shop_b", "driver": "nfs", "driver_opts": {"o": "ro"}},
                "a": {"name": "a", "external": True},
            },
            configs={
                "site": {"name": "shop_site", "file": "/site"},
                "inline": {"name": "shop_inline", "content": "x"},
            },
            secrets={
                "key": {"name": "shop_key", "environment": "KEY", "labels": {"a": "b"}},
                "theirs": {"name": "theirs", "external": True},
            },
        ),
        contents=contents,
    )
    assert not result.faults
    project = result.project
    assert project.volumes == (
        VolumeSpec("a", "a", external=True),
        VolumeSpec("b", "shop_b", driver="nfs", driver_opts=(("o", "ro"),)),
    )
    assert project.configs == (
        ConfigSpec("inline", "shop_inline", content=b"x"),
        ConfigSpec("site", "shop_site", content=b"listen 80;"),
    )
    assert project.secrets == (
        SecretSpec("key", "shop_key", content=b"\x00secret", labels=(("a", "b"),)),
        SecretSpec("theirs", "theirs", external=True),
    )
    assert "secret'" not in repr(project.secrets)


def test_a_build_is_the_clients() -> None:
    """A service that is built runs the image that the client builds and pushes."""
    built = {"image": None, "build": {"context": "/src", "dockerfile": "Dockerfile"}}
    result = project_of(a_config(built))
    [build] = result.builds
    assert (build.service, build.image) == ("web", "shop-web")
    assert build.options == built["build"]
    assert result.project.services[0].task.container.image.reference == "shop-web"
    named = project_of(a_config({**built, "image": "registry/web:2"}))
    assert named.builds[0].image == "registry/web:2"


def test_env_files_are_below_environment() -> None:
    """What a file of `env_file` says holds unless `environment` says otherwise."""
    config = a_config({"environment": {"A": "mine"}, "env_file": [{"path": "/env"}]})
    result = project_of(config, environments={"web": {"A": "file", "B": "file"}})
    assert not result.refusals
    assert result.project.services[0].task.container.environment == (
        EnvVar("A", "mine"),
        EnvVar("B", "file"),
    )


def test_a_project_survives_the_wire() -> None:
    """What the conversion makes can be sent and comes back equal."""
    result = project_of(
        a_config(
            {
                "networks": {"default": None},
                "deploy": {"replicas": 2},
                "healthcheck": {"test": ["CMD", "x"]},
                "x-dray": {
                    "affinity": ["web"],
                    "autoscale": {"min": 1, "max": 3, "cpu_percent": 60},
                },
            },
            networks={"default": {"name": "shop_default", "ipam": {}}},
        )
    )
    sent = to_proto(result.project, ProjectMessage)
    assert from_proto(sent, ProjectSpec) == result.project


def test_a_name_that_is_no_label_is_mapped_and_told() -> None:
    """A project's name with an underscore cannot be a name in DNS."""
    result = project_of({**a_config({}), "name": "my_shop"})
    assert result.project.name == "my-shop"
    assert [each.path for each in result.faults] == ["name"]


@pytest.mark.parametrize("value", [float("inf"), 1e300, 0.5, 2**31], ids=str)
def test_a_priority_that_is_no_number_of_it_is_a_fault(value: float) -> None:
    """Whatever a priority is, it ends in a sentence."""
    config = a_config({"networks": {"n": {"priority": value}}}, networks={"n": {}})
    assert [each.path for each in project_of(config).faults] == ["services.web.networks.n.priority"]


def test_findings_are_bounded_and_the_rest_is_counted() -> None:
    """A project with endless mistakes is told of a thousand, quickly."""
    ports = [
        {"target": 80, "published": "80", "host_ip": f"10.0.{n >> 8}.{n & 255}"}
        for n in range(5000)
    ]
    affinity = [f"no-such-service-{n}" for n in range(60)]
    services = {
        f"service-{n}": {"image": "x", "x-dray": {"affinity": affinity}, "deploy": {"replicas": -1}}
        for n in range(1500)
    }
    config = {"name": "shop", "services": {"web": {"image": "x", "ports": ports}, **services}}
    started_s = time.process_time()
    result = project_of(config)
    assert time.process_time() - started_s < 10
    assert len(result.faults) == 1001
    assert str(result.faults[-1]) == "and 500 more (mend these first)"
    assert 100 <= len(result.problems) <= 101 + len(affinity)
