"""What is said of valid Compose that no cluster can carry out?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from tests.compose_views import a_config, project_of

Config = Mapping[str, object]


def _service(**keys: object) -> Config:
    return a_config(keys)


def _deploy(**keys: object) -> Config:
    return a_config({"deploy": keys})


def _two(web: Config, db: Config, **top: object) -> Config:
    config = a_config(web, **top)
    services = config["services"]
    assert isinstance(services, dict)
    services["db"] = {"image": "postgres", **db}
    return config


_SUBNET: Final = {"n": {"ipam": {"config": [{"subnet": "10.5.0.0/24"}]}}}
MISTAKES: Final[dict[str, tuple[Config, str]]] = {
    "restart": (
        _service(restart="sometimes"),
        (
            "services.web.restart: 'sometimes' is no restart policy (write no, always, "
            "on-failure[:3] or unless-stopped)"
        ),
    ),
    "restart count": (
        _service(restart="always:3"),
        (
            "services.web.restart: 'always:3' is no restart policy (write no, always, "
            "on-failure[:3] or unless-stopped)"
        ),
    ),
    "pull": (
        _service(pull_policy="often"),
        (
            "services.web.pull_policy: 'often' is not a pull policy (write always, "
            "missing, never, daily, weekly, every_12h or build)"
        ),
    ),
    "signal": (
        _service(stop_signal="term please"),
        ("services.web.stop_signal: 'term please' is not a signal (write it as SIGTERM or 15)"),
    ),
    "hosts": (
        _service(extra_hosts=["db"]),
        "services.web.extra_hosts[0]: 'db' names no address (write it as name=address)",
    ),
    "check word": (
        _service(healthcheck={"test": ["RUN", "x"]}),
        ("services.web.healthcheck.test: starts with 'RUN' (start it with CMD, CMD-SHELL or NONE)"),
    ),
    "check shell": (
        _service(healthcheck={"test": ["CMD-SHELL", "a", "b"]}),
        (
            "services.web.healthcheck.test: CMD-SHELL is followed by 2 texts (write the "
            "command as one text)"
        ),
    ),
    "check cmd": (
        _service(healthcheck={"test": ["CMD"]}),
        "services.web.healthcheck.test: CMD is followed by no command",
    ),
    "check both": (
        _service(healthcheck={"test": ["CMD", "x"], "disable": True}),
        "services.web.healthcheck.disable: the check is disabled, and there is a test",
    ),
    "check retries": (
        _service(healthcheck={"test": ["CMD", "x"], "retries": -1}),
        "services.web.healthcheck.retries: -1 is not a number of retries",
    ),
    "hook": (_service(post_start=[{"user": "root"}]), "services.web.post_start[0]: has no command"),
    "mount type": (
        _service(volumes=[{"type": "nfs", "source": "a", "target": "/a"}]),
        (
            "services.web.volumes[0].type: 'nfs' is not a type of mount (write volume, "
            "bind, tmpfs or image)"
        ),
    ),
    "mount relative": (
        _service(volumes=[{"type": "volume", "source": "a", "target": "a"}]),
        "services.web.volumes[0].target: 'a' is not an absolute path",
    ),
    "mount twice": (
        _service(volumes=[{"type": "tmpfs", "target": "/a"}, {"type": "tmpfs", "target": "/a/"}]),
        "services.web.volumes: two file systems are mounted on /a",
    ),
    "mount options": (
        _service(
            volumes=[
                {"type": "volume", "source": "a", "target": "/a", "bind": {"propagation": "shared"}}
            ]
        ),
        "services.web.volumes[0].bind: options of a bind mount on a volume mount",
    ),
    "bind source": (
        _service(volumes=[{"type": "bind", "target": "/a"}]),
        "services.web.volumes[0]: a bind mount has a source (name it with source:)",
    ),
    "tmpfs source": (
        _service(volumes=[{"type": "tmpfs", "source": "a", "target": "/a"}]),
        "services.web.volumes[0].source: a tmpfs mount has no source",
    ),
    "selinux": (
        _service(
            volumes=[{"type": "bind", "source": "/x", "target": "/a", "bind": {"selinux": "q"}}]
        ),
        ("services.web.volumes[0].bind.selinux: 'q' is not an SELinux label (write z or Z)"),
    ),
    "tmpfs": (_service(tmpfs=["run"]), "services.web.tmpfs[0]: 'run' is not an absolute path"),
    "mode": (
        _service(configs=[{"source": "a", "mode": "9"}]),
        "services.web.configs[0].mode: '9' is not a file mode (write it as \"0440\")",
    ),
    "ulimit": (
        _service(ulimits={"nofile": {"soft": 10, "hard": 5}}),
        "services.web.ulimits.nofile: the soft limit 10 is above the hard one, 5",
    ),
    "swappiness": (
        _service(mem_swappiness=101),
        "services.web.mem_swappiness: 101 is outside 0 to 100",
    ),
    "oom": (
        _service(oom_score_adj=-2000),
        "services.web.oom_score_adj: -2000 is outside -1000 to 1000",
    ),
    "device": (
        _service(devices=[{"source": "/dev/kvm", "permissions": "x"}]),
        "services.web.devices[0].permissions: 'x' holds more than r, w and m",
    ),
    "gpu ids": (
        _service(gpus=[{"count": 1, "device_ids": ["0"]}]),
        ("services.web.gpus[0].count: count and device_ids exclude each other (keep one of them)"),
    ),
    "gpu count": (
        _service(gpus=[{"count": -5}]),
        ("services.web.gpus[0].count: -5 is not a number of devices (write 1 or more, or all)"),
    ),
    "capability": (
        _deploy(resources={"reservations": {"devices": [{"count": 1}]}}),
        (
            "services.web.deploy.resources.reservations.devices[0]: names no capability "
            "(add capabilities: [gpu])"
        ),
    ),
    "generic": (
        _deploy(
            resources={
                "reservations": {
                    "generic_resources": [{"discrete_resource_spec": {"kind": "ssd", "value": 0}}]
                }
            }
        ),
        (
            "services.web.deploy.resources.reservations.generic_resources[0]"
            ".discrete_resource_spec.value: "
            "0 is not a quantity (write 1 or more)"
        ),
    ),
    "generic kind": (
        _deploy(
            resources={
                "reservations": {"generic_resources": [{"discrete_resource_spec": {"value": 1}}]}
            }
        ),
        (
            "services.web.deploy.resources.reservations.generic_resources[0]: names no "
            "kind (add discrete_resource_spec: {kind: …, value: …})"
        ),
    ),
    "reserved": (
        _deploy(resources={"limits": {"memory": "1048576"}, "reservations": {"memory": "2097152"}}),
        (
            "services.web.deploy.resources.reservations.memory: more is reserved than the "
            "limit allows (raise limits.memory)"
        ),
    ),
    "reserved cpus": (
        _deploy(resources={"limits": {"cpus": 0.5}, "reservations": {"cpus": 1}}),
        (
            "services.web.deploy.resources.reservations.cpus: more is reserved than the "
            "limit allows (raise limits.cpus)"
        ),
    ),
    "port": (
        _service(ports=[{"target": 70000}]),
        "services.web.ports[0].target: 70000 is not a port (a port is 1 to 65535)",
    ),
    "published": (
        _service(ports=[{"target": 80, "published": "http"}]),
        (
            "services.web.ports[0].published: 'http' is not a port or a range of ports "
            "(write 8080 or 8000-8010)"
        ),
    ),
    "published high": (
        _service(ports=[{"target": 80, "published": "66000"}]),
        "services.web.ports[0].published: 66000 is above 65535",
    ),
    "range": (
        _service(ports=[{"target": 80, "published": "90-80"}]),
        "services.web.ports[0].published: 90-80 ends before it starts",
    ),
    "port mode": (
        _service(ports=[{"target": 80, "mode": "mesh"}]),
        "services.web.ports[0].mode: 'mesh' is no mode (write ingress or host)",
    ),
    "protocol": (
        _service(ports=[{"target": 80, "protocol": "icmp"}]),
        ("services.web.ports[0].protocol: 'icmp' is no protocol (write tcp, udp or sctp)"),
    ),
    "twice": (
        _service(ports=[{"target": 80, "published": "80"}, {"target": 81, "published": "80"}]),
        (
            "services.web.ports[1]: port 80/tcp is published twice by this service "
            "(publish another port)"
        ),
    ),
    "two services": (
        _two(
            {"ports": [{"target": 80, "published": "80"}]},
            {"ports": [{"target": 80, "published": "80"}]},
        ),
        ("services.web.ports[0]: port 80/tcp is published also by db (publish another port)"),
    ),
    "host replicas": (
        a_config(
            {
                "ports": [{"target": 80, "published": "80", "mode": "host"}],
                "deploy": {"replicas": 3},
            }
        ),
        (
            "services.web.ports[0]: port 80 is there once a node, and 3 replicas may meet "
            "on one (write deploy.placement.max_replicas_per_node: 1, or mode: ingress)"
        ),
    ),
    "dnsrr": (
        a_config(
            {"ports": [{"target": 80, "published": "80"}], "deploy": {"endpoint_mode": "dnsrr"}}
        ),
        (
            "services.web.ports[0]: endpoint_mode: dnsrr has no address to publish (write "
            "mode: host)"
        ),
    ),
    "no stack": (
        a_config({"network_mode": "host", "ports": [{"target": 80, "published": "80"}]}),
        (
            "services.web.ports[0]: nothing is published with network_mode: host (remove "
            "one of them)"
        ),
    ),
    "address": (
        a_config(
            {"networks": {"n": {"ipv4_address": "10.9.0.2"}}},
            networks={"n": {"ipam": {"config": [{"subnet": "10.5.0.0/24"}]}}},
        ),
        ("services.web.networks.n.ipv4_address: 10.9.0.2 is outside the network's 10.5.0.0/24"),
    ),
    "address replicas": (
        a_config(
            {"networks": {"n": {"ipv4_address": "10.5.0.2"}}, "deploy": {"replicas": 2}},
            networks=_SUBNET,
        ),
        (
            "services.web.networks.n.ipv4_address: one address, and 2 replicas (remove it, "
            "or run one replica)"
        ),
    ),
    "address text": (
        a_config({"networks": {"n": {"ipv4_address": "10.5.0"}}}, networks=_SUBNET),
        "services.web.networks.n.ipv4_address: '10.5.0' is not an IP address",
    ),
    "address version": (
        a_config({"networks": {"n": {"ipv4_address": "fd00::1"}}}, networks=_SUBNET),
        "services.web.networks.n.ipv4_address: fd00::1 is an IPv6 address",
    ),
    "address without a subnet": (
        a_config({"networks": {"n": {"ipv4_address": "10.5.0.2"}}}, networks={"n": {}}),
        (
            "services.web.networks.n.ipv4_address: 10.5.0.2 is of no subnet: the file names none "
            "for the network (write `ipam: {config: [{subnet: 10.5.0.0/24}]}` under networks.n)"
        ),
    ),
    **{
        f"address {number}": (
            a_config({"networks": {"n": {"ipv4_address": f"10.5.0.{number}"}}}, networks=_SUBNET),
            f"services.web.networks.n.ipv4_address: 10.5.0.{number} is {what} of 10.5.0.0/24",
        )
        for number, what in {
            0: "the network's or the broadcast address",
            1: "the gateway",
            255: "the network's or the broadcast address",
        }.items()
    },
    "address of the gateway": (
        a_config(
            {"networks": {"n": {"ipv4_address": "10.5.0.9"}}},
            networks={
                "n": {"ipam": {"config": [{"subnet": "10.5.0.0/24", "gateway": "10.5.0.9"}]}}
            },
        ),
        "services.web.networks.n.ipv4_address: 10.5.0.9 is the gateway of 10.5.0.0/24",
    ),
    "subnet": (
        a_config(
            {"networks": {"n": None}},
            networks={"n": {"ipam": {"config": [{"subnet": "10.5.0.1/24"}]}}},
        ),
        (
            "networks.n.ipam.config[0].subnet: '10.5.0.1/24' is not a subnet (write it as "
            "10.5.0.0/24)"
        ),
    ),
    "address taken": (
        _two(
            {"networks": {"n": {"ipv4_address": "10.5.0.2"}}},
            {"networks": {"n": {"ipv4_address": "10.5.0.2"}}},
            networks=_SUBNET,
        ),
        "services.web.networks.n.ipv4_address: 10.5.0.2 is also that of db",
    ),
    "container name": (
        a_config({"container_name": "w", "deploy": {"replicas": 2}}),
        (
            "services.web.container_name: one name, and 2 replicas (remove it: tasks are "
            "named 1.web, 2.web …)"
        ),
    ),
    "container names": (
        _two({"container_name": "w"}, {"container_name": "w"}),
        "services.web.container_name: 'w' is also that of db",
    ),
    "mode word": (
        _deploy(mode="daemon"),
        (
            "services.web.deploy.mode: 'daemon' is no mode (write replicated, global, "
            "replicated-job, global-job)"
        ),
    ),
    "global replicas": (
        _deploy(mode="global", replicas=2),
        (
            "services.web.deploy.replicas: a global service has one task a node, and no "
            "number of replicas (remove replicas, or write mode: replicated)"
        ),
    ),
    "replicas": (
        _deploy(replicas=-1),
        (
            "services.web.deploy.replicas: -1 is not a number of replicas (0 to 2000000 "
            "are possible)"
        ),
    ),
    "many": (
        _deploy(replicas=3000000),
        (
            "services.web.deploy.replicas: 3000000 is not a number of replicas (0 to "
            "2000000 are possible)"
        ),
    ),
    "endpoint": (
        _deploy(endpoint_mode="lb"),
        ("services.web.deploy.endpoint_mode: 'lb' is no endpoint mode (write vip or dnsrr)"),
    ),
    "constraint": (
        _deploy(placement={"constraints": ["node.role=worker"]}),
        (
            "services.web.deploy.placement.constraints[0]: 'node.role=worker' is not a "
            "constraint (write it as node.labels.disk == ssd)"
        ),
    ),
    "constraint key": (
        _deploy(placement={"constraints": ["node.rôle == worker"]}),
        (
            "services.web.deploy.placement.constraints[0]: nodes have no attribute "
            "'node.rôle' (there are node.labels.…, node.id, node.hostname, node.name, "
            "node.role, node.platform.os, node.platform.arch)"
        ),
    ),
    "constraint label": (
        _deploy(placement={"constraints": ["node.label.disk == ssd"]}),
        (
            "services.web.deploy.placement.constraints[0]: nodes have no attribute "
            "'node.label.disk' (did you mean node.labels.disk?)"
        ),
    ),
    "constraint engine": (
        _deploy(placement={"constraints": ["engine.labels.os == linux"]}),
        (
            "services.web.deploy.placement.constraints[0]: nodes have no attribute "
            "'engine.labels.os' (give the nodes the label os and write node.labels.os)"
        ),
    ),
    "constraint value": (
        _deploy(placement={"constraints": ["node.labels.disk == "]}),
        (
            "services.web.deploy.placement.constraints[0]: 'node.labels.disk == ' compares "
            "with nothing (write it as node.labels.disk == value)"
        ),
    ),
    "constraint node": (
        _deploy(placement={"constraints": ["node == n1"]}),
        (
            "services.web.deploy.placement.constraints[0]: nodes have no attribute 'node' "
            "(did you mean node.id?)"
        ),
    ),
    "spread": (
        _deploy(placement={"preferences": [{"spread": "zone"}]}),
        (
            "services.web.deploy.placement.preferences[0].spread: nodes have no attribute "
            "'zone' (there are node.labels.…, node.id, node.hostname, node.name, "
            "node.role, node.platform.os, node.platform.arch)"
        ),
    ),
    "per node": (
        _deploy(placement={"max_replicas_per_node": -1}),
        (
            "services.web.deploy.placement.max_replicas_per_node: -1 is not a number of "
            "replicas (0 is no limit)"
        ),
    ),
    "condition": (
        _deploy(restart_policy={"condition": "always"}),
        (
            "services.web.deploy.restart_policy.condition: 'always' is no condition (write "
            "any, on-failure or none)"
        ),
    ),
    "attempts": (
        _deploy(restart_policy={"max_attempts": -1}),
        ("services.web.deploy.restart_policy.max_attempts: -1 is not a number of attempts"),
    ),
    "job restart": (
        _deploy(mode="replicated-job", restart_policy={"condition": "any"}),
        (
            "services.web.deploy.restart_policy.condition: a job that is always restarted "
            "never ends (write on-failure or none)"
        ),
    ),
    "action": (
        _deploy(update_config={"failure_action": "stop"}),
        (
            "services.web.deploy.update_config.failure_action: 'stop' is no action here "
            "(write pause, continue or rollback)"
        ),
    ),
    "rollback": (
        _deploy(rollback_config={"failure_action": "rollback"}),
        (
            "services.web.deploy.rollback_config.failure_action: 'rollback' is no action "
            "here (write pause or continue)"
        ),
    ),
    "order": (
        _deploy(update_config={"order": "first"}),
        (
            "services.web.deploy.update_config.order: 'first' is no order (write "
            "stop-first or start-first)"
        ),
    ),
    "parallelism": (
        _deploy(update_config={"parallelism": -1}),
        (
            "services.web.deploy.update_config.parallelism: -1 is not a number of tasks (0 "
            "is all at once)"
        ),
    ),
    "ratio": (
        _deploy(update_config={"max_failure_ratio": 2}),
        ("services.web.deploy.update_config.max_failure_ratio: 2 is not a share (write 0 to 1)"),
    ),
    "depends": (
        _service(depends_on={"db": {"condition": "ready"}}),
        (
            "services.web.depends_on.db.condition: 'ready' is no condition (write "
            "service_started, service_healthy, service_completed_successfully)"
        ),
    ),
    "label": (
        _service(labels={"dray.task-id": "x"}),
        (
            "services.web.labels.dray.task-id: names that start with dray. are dray's own "
            "(rename it)"
        ),
    ),
    "file gone": (
        a_config({}, configs={"c": {"file": "/c", "name": "shop_c"}}),
        "configs.c.file: there is no file /c (make it, or name another one)",
    ),
    "variable gone": (
        a_config({}, secrets={"c": {"environment": "TOKEN", "name": "shop_c"}}),
        ("secrets.c.environment: the variable TOKEN is not set (set TOKEN where you run dray)"),
    ),
    "no content": (
        a_config({}, configs={"c": {"name": "shop_c"}}),
        ("configs.c: has no content (add file:, environment: or content:, or external: true)"),
    ),
    "template": (
        a_config({}, configs={"c": {"name": "shop_c", "content": "x", "template_driver": "jinja"}}),
        "configs.c.template_driver: 'jinja' is not a template driver (write golang)",
    ),
    "project": (
        {**a_config({}), "name": "my_shop"},
        (
            "name: project name 'my_shop' may hold only a-z, 0-9 and hyphens, and no "
            "hyphen at either end ('my-shop' would do)"
        ),
    ),
    "dns": (
        {"name": "shop", "services": {"a_b": {"image": "x"}, "a-b": {"image": "x"}}},
        "services.a_b: has the same name in DNS as a-b (rename one of them)",
    ),
    "unit": (
        _service(mem_limit="lots"),
        "services.web.mem_limit: 'lots' is not a size (write it as 512m, 1.5g or 1024)",
    ),
    "mac": (
        a_config({"mac_address": "02:42:ac:11:00:02", "network_mode": "none"}),
        "services.web.mac_address: the service is on no network (remove it)",
    ),
}


@pytest.mark.parametrize(("config", "message"), MISTAKES.values(), ids=MISTAKES)
def test_the_message(config: Config, message: str) -> None:
    """Each mistake is one fault with the key, what is wrong and what to do."""
    result = project_of(config, contents={})
    found = [*result.problems, *result.faults, *result.refusals]
    assert [str(each) for each in found] == [message]
    assert len(result.faults) == 1
