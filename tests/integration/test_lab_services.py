"""Do the lab's etcd clusters and its image registry behave, and stay the test's to break?"""

from pathlib import Path

import docker.errors
import pytest

from tests.lab import BUSYBOX, WEB, Lab, LabError, wait_for
from tests.lab.etcd import EtcdCluster
from tests.lab.registry import Registry, bcrypt_hash


def test_one_etcd_serves(etcd1: EtcdCluster) -> None:
    """A cluster of one leads itself and keeps what is written over a restart."""
    assert etcd1.leader() == 0
    etcd1.etcdctl("put", "key", "value")
    etcd1.restart(0)
    assert etcd1.etcdctl("get", "--print-value-only", "key").stdout == "value\n"


def test_three_etcds_survive_the_death_of_their_leader_and_say_so(etcd3: EtcdCluster) -> None:
    """Two of three members elect a new leader, serve, and tell who is missing."""
    first = etcd3.leader()
    assert first is not None
    etcd3.etcdctl("put", "survivor", "1")
    etcd3.kill(first)
    rest = [member.endpoint for member in etcd3.members if member.index != first]
    second = wait_for(
        lambda: None if (now := etcd3.leader()) in (None, first) else etcd3.members[now or 0].name,
        "another member leads",
    )
    assert second != etcd3.members[first].name
    etcd3.wait_healthy()
    assert etcd3.health() == {index: index != first for index in range(3)}
    read = etcd3.etcdctl("get", "--print-value-only", "survivor", endpoints=rest)
    assert read.stdout == "1\n"
    etcd3.restart(first)
    assert etcd3.health() == dict.fromkeys(range(3), True)


def test_a_paused_member_is_unhealthy_until_it_resumes(etcd3: EtcdCluster) -> None:
    """A stopped member accepts connections but does not serve."""
    follower = next(index for index in range(3) if index != etcd3.leader())
    etcd3.pause(follower)
    assert not etcd3.health()[follower]
    etcd3.resume(follower)
    etcd3.wait_healthy()
    assert etcd3.health()[follower]


def test_a_snapshot_brings_old_content_and_an_old_revision_back(
    etcd1: EtcdCluster, tmp_path: Path
) -> None:
    """After a restore the store has the snapshot's content, and its revision has gone back."""

    def revision() -> int:
        answer = etcd1.etcdctl("get", "restored", "-w", "json").stdout
        return int(answer.partition('"revision":')[2].partition(",")[0])

    etcd1.etcdctl("put", "restored", "old")
    etcd1.snapshot_save(tmp_path / "snapshot")
    for _ in range(5):
        etcd1.etcdctl("put", "restored", "new")
    before = revision()
    etcd1.snapshot_restore(tmp_path / "snapshot")
    assert etcd1.etcdctl("get", "--print-value-only", "restored").stdout == "old\n"
    assert revision() < before


def test_etcd_on_hosts_loses_a_host_and_gets_it_back(lab: Lab, tmp_path: Path) -> None:
    """A cluster with a member on each host serves while one host is without power."""
    with EtcdCluster(3, tmp_path, hosts=lab.hosts) as cluster:
        cluster.etcdctl("put", "key", "value")
        lab.host(2).power_off()
        cluster.wait_healthy()
        rest = [cluster.endpoints[0], cluster.endpoints[2]]
        read = cluster.etcdctl("get", "--print-value-only", "key", endpoints=rest)
        assert read.stdout == "value\n"
        assert cluster.health() == {0: True, 1: False, 2: True}
        lab.host(2).boot()
        cluster.restart(1)
        assert cluster.health() == dict.fromkeys(range(3), True)


def test_an_image_goes_from_host_to_host_through_the_registry(lab: Lab, registry: Registry) -> None:
    """What one host pushes, another one pulls: the very same image."""
    pushed = lab.host(1).docker.images.get(WEB.reference)
    reference = registry.push(lab.host(1).docker, WEB.reference, "shop/web:7")
    assert reference == f"{lab.switch_address}:5000/shop/web:7"
    assert registry.pull(lab.host(2).docker, "shop/web:7") == pushed.id
    for host in (lab.host(1), lab.host(2)):
        host.docker.images.remove(reference)


def test_a_registry_with_credentials_refuses_others(lab: Lab, tmp_path: Path) -> None:
    """Without the credentials neither push nor pull works, with them both do."""
    client = lab.host(1).docker
    with Registry(tmp_path, lab=lab, credentials=("ada", "secret"), port=5001) as private:
        reference = private.push(client, BUSYBOX.reference)
        client.images.remove(reference)
        with pytest.raises(docker.errors.APIError, match="no basic auth"):
            client.images.pull(reference)
        assert private.pull(client, BUSYBOX.reference)
        stranger = Registry(tmp_path / "none", lab=lab, port=5001)
        with pytest.raises(LabError, match="no basic auth"):
            stranger.push(client, BUSYBOX.reference)
        client.images.remove(reference)


def test_a_registry_serves_on_loopback_too(tmp_path: Path) -> None:
    """Without a lab the registry listens on a free loopback port, and ends with the block."""
    with Registry(tmp_path) as local:
        assert local.address.startswith("127.0.0.1:")
        assert (tmp_path / "registry.log").exists()
    assert bcrypt_hash("a") != bcrypt_hash("a")
