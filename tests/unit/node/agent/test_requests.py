"""Which container, files and volumes does an attempt need, and what is published of it?"""

from __future__ import annotations

import dataclasses

import pytest

from dray.model import (
    Assignment,
    AttemptState,
    ContentKind,
    ContentRef,
    DeviceRequest,
    EndpointPort,
    Epoch,
    FileMount,
    Health,
    Link,
    Mount,
    MountKind,
    NetworkAttachment,
    NetworkMode,
    NetworkSpec,
    ProjectParts,
    PublishedPort,
    PublishMode,
    Security,
    ServiceAddress,
    ServiceKey,
    StoreRevision,
    TaskSpecEntry,
    VolumeSpec,
)
from node.agent.assign import Share
from node.agent.publication import askers, service_facts
from node.agent.requests import (
    Work,
    container_name,
    container_request,
    device_requests,
    file_requests,
    lenders_needed,
    own_network,
    registry_of,
)
from node.agent.tasks import TaskState
from node.runtime.base import ContainerNetwork, Refused, Volume
from node.volumes.plan import removable_volumes, volume_plan
from tests.node_agent import CLUSTER, NODE, a_task, an_entry, task_id

DB = ServiceKey("shop", "db")


def a_work(entry: TaskSpecEntry | None = None, *, parts: ProjectParts | None = None) -> Work:
    """Return the second attempt of a task."""
    return Work(CLUSTER, "n1", a_task(3), entry or an_entry(), parts or ProjectParts("shop"), 2)


def test_a_container_is_named_after_its_attempt() -> None:
    """The name is the same whenever it is asked for, and says whose it is."""
    name = container_name(a_work())
    assert name == container_name(a_work())
    assert name.startswith("dray-shop-web-3-")
    assert name.endswith("-2")
    other = dataclasses.replace(a_work(), attempt=3)
    assert container_name(other) != name


def test_a_request_says_whose_it_is_and_who_it_runs_for() -> None:
    """Variables, host name and identity follow from the task."""
    request = container_request(a_work(), ContainerNetwork("dray"), mounts=(), lenders={})
    assert request.identity.attempt == 2
    assert request.hostname == "web-3"
    environment = dict(request.environment)
    assert environment["DRAY_SERVICE"] == "web"
    assert environment["DRAY_FENCE"].endswith(task_id(3))


def test_what_others_lend_is_named_by_their_container() -> None:
    """Network stack, processes and IPC of another service's container on the node."""
    security = Security(pid_mode="service:db", ipc_mode="service:db")
    entry = an_entry(network_mode=NetworkMode.SERVICE, network_mode_target="db", security=security)
    work = a_work(entry)
    assert lenders_needed(work) == (DB,)
    network = own_network(work, {DB: "c7"})
    assert network == ContainerNetwork("container:c7")
    request = container_request(work, network, mounts=(), lenders={DB: "c7"})
    assert request.spec.security.pid_mode == "container:c7"
    assert request.hostname == ""


@pytest.mark.parametrize(
    ("mode", "name"),
    [(NetworkMode.HOST, "host"), (NetworkMode.NONE, "none"), (NetworkMode.CLUSTER, "")],
)
def test_only_the_clusters_networks_need_addresses(mode: NetworkMode, name: str) -> None:
    """The machine's own stack and none at all are Docker's words."""
    network = own_network(a_work(an_entry(network_mode=mode)), {})
    assert (network.name if network is not None else "") == name


def test_files_are_those_that_the_leader_named() -> None:
    """One that is not in the cluster refuses the attempt."""
    ref = ContentRef(ContentKind.CONFIG, "site", "shop_site", b"d" * 32)
    mount = FileMount("site", "/etc/site")
    entry = an_entry(configs=(mount,))
    found = file_requests(a_work(entry, parts=ProjectParts("shop", contents=(ref,))))
    assert not isinstance(found, Refused)
    assert [(each.content, each.mount) for each in found] == [(ref, mount)]
    assert isinstance(file_requests(a_work(entry)), Refused)


@pytest.mark.parametrize(
    ("reference", "host"),
    [
        ("nginx", "docker.io"),
        ("library/nginx:1", "docker.io"),
        ("registry.example/team/web:2", "registry.example"),
        ("localhost:5000/web", "localhost:5000"),
        ("localhost/web", "localhost"),
    ],
)
def test_credentials_are_found_by_the_registrys_host(reference: str, host: str) -> None:
    """As Docker reads image references."""
    assert registry_of(reference) == host


def test_volumes_get_their_full_names_and_only_some_may_be_made() -> None:
    """What is not creatable, or external, must be there."""
    parts = ProjectParts(
        "shop",
        volumes=(
            VolumeSpec("a", "shop_a"),
            VolumeSpec("b", "shop_b"),
            VolumeSpec("c", "ours", external=True),
        ),
        creatable_volumes=("shop_a", "ours"),
    )
    mounts = tuple(Mount(MountKind.VOLUME, key, f"/{key}") for key in "abc")
    bind = Mount(MountKind.BIND, "/srv", "/srv")
    plan = volume_plan((*mounts, bind), parts, CLUSTER)
    assert not isinstance(plan, Refused)
    assert [mount.source for mount in plan.mounts] == ["shop_a", "shop_b", "ours", "/srv"]
    assert [request.name for request in plan.make] == ["shop_a"]
    assert plan.need == ("shop_b", "ours")
    assert ("dray.volume", "a") in plan.make[0].labels
    assert isinstance(volume_plan(mounts, ProjectParts("shop"), CLUSTER), Refused)


def test_a_running_task_is_published_with_all_that_others_need() -> None:
    """Address, ports, networks and aliases; ingress ports and the service's own address."""
    entry = an_entry(
        ports=(
            PublishedPort(80, 8080, name="http"),
            PublishedPort(53, 53, mode=PublishMode.HOST),
        ),
        networks=(NetworkAttachment("front", aliases=("www",), ipv4_address="10.5.0.9"),),
        container_name="shop-web",
        expose=("9000-9001/udp", "80"),
        links=(Link("db", "database"),),
        client_ip_affinity=True,
    )
    parts = ProjectParts(
        "shop",
        networks=(NetworkSpec("front", "shop_front"),),
        service_addresses=(ServiceAddress("web", "10.224.0.9"),),
    )
    tasks = (a_task(1), a_task(2), a_task(3))
    assignment = Assignment(CLUSTER, NODE, Epoch(1, 5), StoreRevision(1), tasks, (entry,))
    share = Share(assignment, {"shop": parts})
    states = [
        TaskState(
            task_id(1), tasks[0].slot, state=AttemptState.RUNNING, container_id="c1",
            address="10.192.0.2", health=Health.HEALTHY,
        ),
        TaskState(
            task_id(2), tasks[1].slot, state=AttemptState.STOPPING, container_id="c2",
            address="10.192.0.3",
        ),
        TaskState(task_id(3), tasks[2].slot, state=AttemptState.PULLING),
    ]  # fmt: skip
    facts = service_facts(share, states, "10.0.0.1")[ServiceKey("shop", "web")]
    assert (facts.vip, facts.affinity) == ("10.224.0.9", True)
    assert facts.published == (entry.ports[0],)
    assert facts.static == (("shop_front", "10.5.0.9"),)
    first, second = facts.endpoints
    assert (first.address, first.draining, second.draining) == ("10.192.0.2", False, True)
    assert first.networks == ("shop_front",)
    assert first.aliases == (("shop_front", "shop-web"), ("shop_front", "www"))
    assert first.ports == (
        EndpointPort(53),
        EndpointPort(80, "tcp", "http"),
        EndpointPort(9000, "udp"),
        EndpointPort(9001, "udp"),
    )
    known = askers(share, states)
    assert known.keys() == {"10.192.0.2", "10.192.0.3"}
    assert known["10.192.0.2"].links == (("database", DB),)


def test_a_container_on_the_machines_stack_is_reached_at_the_node() -> None:
    """It has no address of its own."""
    entry = an_entry(network_mode=NetworkMode.HOST)
    task = a_task(1)
    assignment = Assignment(CLUSTER, NODE, Epoch(1, 5), StoreRevision(1), (task,), (entry,))
    state = TaskState(task_id(1), task.slot, state=AttemptState.RUNNING, container_id="c")
    facts = service_facts(Share(assignment), [state], "10.0.0.1")
    assert facts[ServiceKey("shop", "web")].endpoints[0].address == "10.0.0.1"


A, B, C = "GPU-a", "GPU-b", "GPU-c"
GPU = ("gpu",)


@pytest.mark.parametrize(
    ("devices", "gpu_ids", "wanted"),
    [
        pytest.param((), (), (), id="none"),
        pytest.param(
            (DeviceRequest(count=2, capabilities=GPU),),
            (A, B),
            (DeviceRequest(device_ids=(A, B), capabilities=GPU),),
            id="chosen ones in place of a number",
        ),
        pytest.param(
            (
                DeviceRequest(count=1, capabilities=GPU),
                DeviceRequest("other", count=3),
                DeviceRequest("nvidia", count=1),
            ),
            (A, B),
            (
                DeviceRequest(device_ids=(A,), capabilities=GPU),
                DeviceRequest("other", count=3),
                DeviceRequest("nvidia", device_ids=(B,)),
            ),
            id="each request gets its own",
        ),
        pytest.param(
            (DeviceRequest(device_ids=(C,), capabilities=GPU),),
            (),
            (DeviceRequest(device_ids=(C,), capabilities=GPU),),
            id="named by the user",
        ),
        pytest.param(
            (),
            (A,),
            (DeviceRequest("nvidia", device_ids=(A,), capabilities=GPU),),
            id="asked for beside Compose",
        ),
    ],
)
def test_docker_is_asked_for_the_gpus_that_placement_chose(
    devices: tuple[DeviceRequest, ...], gpu_ids: tuple[str, ...], wanted: tuple[DeviceRequest, ...]
) -> None:
    """By their ids, so that no two tasks get the same one."""
    assert device_requests(devices, gpu_ids) == wanted


def test_only_what_this_cluster_made_for_the_project_is_removed() -> None:
    """By labels; a volume of the same name that somebody else made is kept."""

    def a_volume(name: str, cluster: str, project: str) -> Volume:
        labels = (("dray.cluster-id", cluster), ("dray.project", project), ("own", "label"))
        return Volume(name, labels=labels)

    volumes = [
        a_volume("shop_data", CLUSTER, "shop"),
        a_volume("shop_kept", CLUSTER, "shop"),
        a_volume("shop_other", CLUSTER, "other"),
        a_volume("shop_foreign", "another", "shop"),
        Volume("shop_bare"),
    ]
    names = ("shop_data", "shop_other", "shop_foreign", "shop_bare", "shop_gone")
    assert removable_volumes(names, volumes, "shop", CLUSTER) == ("shop_data",)
