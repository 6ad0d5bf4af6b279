"""Does the API keep what it is told, once, and refuse what it must? Through a real channel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from dray.client import Write
from dray.errors import (
    AlreadyExists,
    DrayError,
    ErrorCode,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    ResourceExhausted,
    RevisionConflict,
)
from dray.model import (
    ConfigSpec,
    Dependency,
    FileMount,
    IpamPool,
    NetworkAttachment,
    NetworkSpec,
    ProjectSpec,
    PublishMode,
    SecretSpec,
    ServiceSpec,
)
from dray.names import RequestId
from dray.views import ChangeKind
from scheduler.store import keys
from scheduler.store.base import Put, Store
from scheduler.store.codec import encode
from scheduler.store.memory import CommitFault, MemoryStore
from tests.builders import a_container, a_port, a_service, an_id
from tests.contract.client.rig import cluster, project_of

NewStore = Callable[[], Store]
REQUEST = RequestId(an_id(77))


async def test_a_project_is_applied_changed_and_removed(new_store: NewStore) -> None:
    """Services are created, changed, kept or removed, and every change is a numbered revision."""
    async with cluster(new_store=new_store) as made, made.client() as client:
        web, worker = a_service("web", replicas=2), a_service("worker")
        reply = await client.apply_project(project_of(web, worker))
        assert [each.kind for each in reply.services] == [ChangeKind.CREATED] * 2
        again = await client.apply_project(project_of(web, worker))
        assert [each.kind for each in again.services] == [ChangeKind.UNCHANGED] * 2
        assert again.revision == reply.revision

        changed = await client.apply_project(project_of(a_service("web", image="web:2")))
        by_name = {each.service: each for each in changed.services}
        assert by_name["web"].kind is ChangeKind.REPLACED
        assert (by_name["web"].old_revision, by_name["web"].revision) == (1, 2)
        assert ("image", "web:1", "web:2") in {
            (each.path, each.before, each.after) for each in by_name["web"].changes
        }
        assert by_name["worker"].kind is ChangeKind.KEPT
        assert "worker" in changed.header.warnings[0]

        gone = await client.apply_project(
            project_of(a_service("web", image="web:2")), remove_absent_services=True
        )
        assert {each.service: each.kind for each in gone.services} == {
            "web": ChangeKind.UNCHANGED,
            "worker": ChangeKind.REMOVED,
        }
        listed = await client.list_services("shop")
        assert [each.record.spec.name for each in listed.services] == ["web"]
        await client.remove_project("shop")
        assert (await client.get_project("shop")).project.is_removing  # type: ignore[union-attr]
        with pytest.raises(FailedPrecondition, match="being removed"):
            await client.apply_project(project_of(web))


async def test_a_repeated_call_is_carried_out_once(new_store: NewStore) -> None:
    """The same request id gives the first result, on any scheduler, however often it is sent."""
    async with cluster(2, new_store=new_store) as made:
        spec = project_of(a_service("web"))
        async with made.client(made.schedulers[0]) as one, made.client(made.schedulers[1]) as two:
            first = await one.apply_project(spec, Write(REQUEST, if_revision=0))
            assert not first.is_repeated
            second = await two.apply_project(spec, Write(REQUEST, if_revision=0))
            assert second.is_repeated
            assert (second.revision, second.services) == (first.revision, first.services)
            with pytest.raises(InvalidRequest, match="was used for another"):
                await one.apply_project(project_of(a_service("db")), Write(REQUEST))
            with pytest.raises(AlreadyExists, match="was used for ApplyProject"):
                await one.restart_services("shop", write=Write(REQUEST))
            history = await one.list_revisions("shop", "web")
            assert [each.revision for each in history.revisions] == [1]


@pytest.mark.parametrize("fault", [CommitFault.LOST, CommitFault.UNANSWERED])
async def test_a_lost_answer_is_repeated_by_the_client(fault: CommitFault) -> None:
    """Whether a write was applied or not when its answer was lost, it is applied once."""
    async with cluster() as made, made.client() as client:
        await client.get_cluster_info()
        store = made.stores[0]
        assert isinstance(store, MemoryStore)
        store.fail_next_commit(fault)
        await client.apply_project(project_of(a_service("web")))
        history = await client.list_revisions("shop", "web")
        assert [each.revision for each in history.revisions] == [1]


async def test_a_write_that_expects_another_revision_is_refused(new_store: NewStore) -> None:
    """`if_revision` protects against others, and 0 against what exists."""
    async with cluster(new_store=new_store) as made, made.client() as client:
        spec = project_of(a_service("web"))
        first = await client.apply_project(spec, Write(if_revision=0))
        with pytest.raises(RevisionConflict, match="exists already"):
            await client.apply_project(spec, Write(if_revision=0))
        with pytest.raises(RevisionConflict) as caught:
            await client.scale_services("shop", {"web": 3}, Write(if_revision=first.revision - 1))
        assert caught.value.context["revision"] == str(first.revision)
        scaled = await client.scale_services("shop", {"web": 3}, Write(if_revision=first.revision))
        assert scaled.revision > first.revision


async def test_scale_restart_history_diff_and_revert(new_store: NewStore) -> None:
    """Each is a new revision; a revert brings back the content of an older one."""
    async with cluster(new_store=new_store) as made, made.client() as client:
        await client.apply_project(project_of(a_service("web", replicas=1)))
        (scaled,) = (await client.scale_services("shop", {"web": 3})).services
        assert (scaled.kind, scaled.revision) == (ChangeKind.UPDATED, 2)
        (restarted,) = (await client.restart_services("shop")).services
        assert (restarted.kind, restarted.revision) == (ChangeKind.REPLACED, 3)
        await client.apply_project(project_of(a_service("web", replicas=3, image="web:2")))
        diff = await client.diff_revisions("shop", "web")
        assert (diff.from_revision, diff.to_revision) == (3, 4)
        assert [each.path for each in diff.changes] == ["image"]
        assert all(each.replaces_tasks for each in diff.changes)
        whole = await client.diff_revisions("shop", "web", 1, 4)
        assert "deploy.replicas" in [each.path for each in whole.changes]

        reply = await client.revert_service("shop", "web", 1)
        assert reply.service is not None
        assert (reply.service.revision, reply.service.kind) == (5, ChangeKind.REPLACED)
        (newest, *_) = (await client.list_revisions("shop", "web")).revisions
        assert newest.reverted_from == 1
        assert newest.spec.mode.replicas == 1
        assert newest.spec.task.force == 1, "a restart does not come back"
        with pytest.raises(NotFound, match="no revision 99"):
            await client.revert_service("shop", "web", 99)
        with pytest.raises(RevisionConflict):
            await client.revert_service("shop", "web", 2, Write(if_revision=4))
        older = await client.get_service("shop", "web", 2)
        assert older.service is not None
        assert older.service.record.spec.mode.replicas == 3


async def test_dependents_are_restarted_with_what_they_depend_on(new_store: NewStore) -> None:
    """`depends_on: {db: {restart: true}}`, and what depends on that in turn; others stay."""

    def project(image: str) -> ProjectSpec:
        db, web, edge, other = map(a_service, ("db", "web", "edge", "other"))
        return project_of(
            replace(db, task=a_service("db", image=image).task),
            replace(web, depends_on=(Dependency("db", restart=True),)),
            replace(edge, depends_on=(Dependency("web", restart=True),)),
            replace(other, depends_on=(Dependency("db"),)),
        )

    async with cluster(new_store=new_store) as made, made.client() as client:
        await client.apply_project(project("db:1"))
        expected = {
            "db": ChangeKind.REPLACED,
            "web": ChangeKind.REPLACED,
            "edge": ChangeKind.REPLACED,
            "other": ChangeKind.UNCHANGED,
        }
        applied = await client.apply_project(project("db:2"))
        assert {each.service: each.kind for each in applied.services} == expected
        again = await client.apply_project(project("db:2"))
        assert {each.kind for each in again.services} == {ChangeKind.UNCHANGED}
        restarted = await client.restart_services("shop", ["db"])
        assert {each.service for each in restarted.services} == {"db", "web", "edge"}


async def test_services_get_addresses_of_their_own(new_store: NewStore) -> None:
    """Each service has one address, keeps it when it changes, and gives it back at its end."""
    async with cluster(new_store=new_store) as made, made.client() as client:
        await client.apply_project(project_of(a_service("web"), a_service("db")))
        before = {
            each.record.spec.name: each.record.vip
            for each in (await client.list_services("shop")).services
        }
        assert len(set(before.values())) == 2
        assert all(address.startswith("10.224.") for address in before.values())
        await client.apply_project(project_of(a_service("web", image="web:2"), a_service("db")))
        after = await client.get_service("shop", "web")
        assert after.service is not None
        assert after.service.record.vip == before["web"]
        await client.remove_project("shop")
        assert made.first.mirror.snapshot.vips == {}


async def test_ports_are_chosen_and_never_taken_twice(new_store: NewStore) -> None:
    """An open port is chosen and kept; a port that another service publishes is refused."""
    async with cluster(new_store=new_store) as made, made.client() as client:
        web = a_service("web", ports=(a_port(80),))
        await client.apply_project(project_of(web))
        chosen = (await client.get_service("shop", "web")).service
        assert chosen is not None
        (port,) = chosen.record.spec.ports
        assert 30_000 <= port.published < 32_768
        again = await client.apply_project(project_of(web))
        assert [each.kind for each in again.services] == [ChangeKind.UNCHANGED]
        taken = a_service("api", ports=(a_port(80, port.published),))
        with pytest.raises(AlreadyExists, match=f"{port.published}/tcp") as caught:
            await client.apply_project(project_of(taken, name="other"))
        assert caught.value.context["field"] == "services.api.ports"
        hosted = a_service(
            "api", ports=(replace(a_port(80, port.published), mode=PublishMode.HOST),)
        )
        with pytest.raises(AlreadyExists, match="is published on every node by shop/web"):
            await client.apply_project(project_of(hosted, name="other"))


async def test_projects_that_race_share_no_port(new_store: NewStore) -> None:
    """Of two that publish one port at once on two schedulers one is refused, and told by whom."""
    async with cluster(2, new_store=new_store) as made:
        one, two = made.schedulers
        async with made.client(one) as first, made.client(two) as second:
            for turn in range(3):
                port = (a_port(80, 8080 + turn),)
                outcomes = await asyncio.gather(
                    first.apply_project(project_of(a_service("a", ports=port), name=f"a{turn}")),
                    second.apply_project(project_of(a_service("b", ports=port), name=f"b{turn}")),
                    return_exceptions=True,
                )
                (refused,) = [each for each in outcomes if isinstance(each, BaseException)]
                assert isinstance(refused, AlreadyExists)
                assert f"port {8080 + turn}/tcp" in str(refused)


async def test_contents_replace_the_tasks_that_use_them(new_store: NewStore) -> None:
    """A config's new content replaces its users alone; a secret is never in a reply."""
    mount = FileMount("motd", "/etc/motd")
    key = FileMount("key", "/run/secrets/key")
    web = a_service("web", container=replace(a_container(), configs=(mount,), secrets=(key,)))

    def spec(motd: bytes, secret: bytes = b"hunter2") -> ProjectSpec:
        return ProjectSpec(
            "shop",
            (a_service("db"), web),
            configs=(ConfigSpec("motd", "shop_motd", content=motd),),
            secrets=(SecretSpec("key", "shop_key", content=secret),),
        )

    async with cluster(new_store=new_store) as made, made.client() as client:
        await client.apply_project(spec(b"one"))
        same = await client.apply_project(spec(b"one"))
        assert {each.kind for each in same.services} == {ChangeKind.UNCHANGED}
        for changed in (spec(b"two"), spec(b"two", b"other")):
            reply = await client.apply_project(changed)
            kinds = {each.service: each.kind for each in reply.services}
            assert kinds == {"db": ChangeKind.UNCHANGED, "web": ChangeKind.REPLACED}
            assert "hunter2" not in repr(reply)
        stored = (await made.writer.list(keys.ROOT)).items
        assert not [item.key for item in stored if b"hunter2" in item.value], "not sealed"
        asked = (await client.get_project("shop")).spec
        assert asked is not None
        assert (asked.secrets[0].content, asked.configs[0].content) == (b"", b"")
        for number in range(4):
            await client.apply_project(spec(f"text {number}".encode()))
        kept = [key for key in made.first.mirror.snapshot.contents if "/config/" in key]
        assert len(kept) == 2, "what is there, and what was there before"
        await client.apply_project(spec(b"two"))
        other = ProjectSpec(
            "two",
            (web,),
            configs=(ConfigSpec("motd", "shop_motd", external=True),),
            secrets=(SecretSpec("key", "nobody_has_it", external=True),),
        )
        with pytest.raises(NotFound, match="nobody_has_it"):
            await client.apply_project(other)
        found = replace(other, secrets=(SecretSpec("key", "shop_key", external=True),))
        await client.apply_project(found)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ProjectSpec("Shop"), "project name"),
        (ProjectSpec(""), "is empty"),
        (ProjectSpec("shop", secrets=(SecretSpec("", ""),)), "without a name"),
        (project_of(a_service("web"), a_service("web")), "twice"),
        (project_of(a_service("web.x"), a_service("web-x")), "same DNS name"),
        (project_of(a_service("web", replicas=-1)), "replicas"),
        (
            project_of(
                a_service(
                    "web", container=replace(a_container(), configs=(FileMount("no", "/no"),))
                )
            ),
            "'no' is not among the project's configs",
        ),
    ],
    ids=["name", "empty", "key", "twice", "label", "replicas", "reference"],
)
async def test_a_project_that_contradicts_itself_is_refused(
    new_store: NewStore, spec: ProjectSpec, message: str
) -> None:
    """The refusal names the field, and nothing is stored."""
    async with cluster(new_store=new_store) as made, made.client() as client:
        with pytest.raises(InvalidRequest, match=message):
            await client.apply_project(spec)
        assert (await client.list_projects()).projects == ()


async def test_what_fits_no_transaction_is_refused_with_the_way_out(new_store: NewStore) -> None:
    """A change of very many services says how to make it in parts."""
    async with cluster(new_store=new_store) as made, made.client() as client:
        services = [a_service(f"s{number:03}") for number in range(90)]
        with pytest.raises(ResourceExhausted, match="90 services") as caught:
            await client.apply_project(project_of(*services))
        assert "dray up" in caught.value.hint
        await client.apply_project(project_of(*services[:60]))
        await client.apply_project(project_of(*services[60:]))
        assert len((await client.list_services("shop")).services) == 90
        await client.remove_project("shop")
        assert (await client.list_services("shop")).services == ()


async def test_unknown_things_are_named_with_what_there_is(new_store: NewStore) -> None:
    """A wrong name says which names there are."""
    async with cluster(new_store=new_store) as made, made.client() as client:
        await client.apply_project(project_of(a_service("web")))
        for call in (
            client.get_project("no"),
            client.remove_project("no"),
            client.list_tasks("no"),
            client.get_service("shop", "no"),
            client.scale_services("shop", {"no": 1}),
            client.revert_service("shop", "no"),
        ):
            with pytest.raises(NotFound) as caught:
                await call
            assert caught.value.hint
        with pytest.raises(NotFound) as caught:
            await client.scale_services("shop", {"no": 1})
        assert caught.value.hint == "it has: web"
        with pytest.raises(DrayError) as refused:
            await client.list_tasks(node="n9")
        assert refused.value.code is ErrorCode.NOT_FOUND


async def test_writes_that_race_follow_one_another(new_store: NewStore) -> None:
    """Many writers on two schedulers: each write is a revision of its own, none is lost."""
    async with cluster(2, new_store=new_store) as made:
        one, two = made.schedulers
        async with made.client(one) as first, made.client(two) as second:
            await first.apply_project(project_of(a_service("web"), a_service("db")))
            clients = [first, second] * 4
            replies = await asyncio.gather(
                *(
                    client.scale_services("shop", {"web" if number % 2 else "db": number + 10})
                    for number, client in enumerate(clients)
                )
            )
            numbers = [(each.services[0].service, each.services[0].revision) for each in replies]
            assert sorted(numbers) == [
                (service, revision) for service in ("db", "web") for revision in range(2, 6)
            ]
            assert len({each.revision for each in replies}) == len(replies)


def _static(name: str, address: str, *, image: str = "web:1", replicas: int = 1) -> ServiceSpec:
    made = a_service(name, image=image, replicas=replicas)
    attachments = (NetworkAttachment("n", ipv4_address=address),) if address else ()
    return replace(made, task=replace(made.task, networks=attachments))


def _static_project(*services: ServiceSpec, name: str = "shop") -> ProjectSpec:
    network = NetworkSpec("n", f"{name}_n", ipam_pools=(IpamPool("10.5.0.0/24"),))
    return ProjectSpec(name, services, (network,))


async def test_an_address_that_a_file_names_has_one_owner(new_store: NewStore) -> None:
    """It is refused to others with its owner's name, and nothing of their project is applied.

    It stays over revisions, moves within the project, and is free once nobody names it.
    """
    async with cluster(new_store=new_store) as made, made.client() as client:

        def owners() -> dict[str, str]:
            vips = made.first.mirror.snapshot.vips
            return {at: key.service for at, key in vips.items() if at.startswith("10.5.")}

        await client.apply_project(_static_project(_static("web", "10.5.0.9")))
        other = _static_project(a_service("api"), _static("db", "10.5.0.9"), name="other")
        with pytest.raises(AlreadyExists, match=r"10.5.0.9 of other/db is that of shop/web"):
            await client.apply_project(other)
        with pytest.raises(NotFound):
            await client.get_project("other")
        await client.apply_project(_static_project(_static("web", "10.5.0.9", image="web:2")))
        assert owners() == {"10.5.0.9": "web"}
        moved = _static_project(_static("db", "10.5.0.9"), _static("web", "10.5.0.8"))
        await client.apply_project(moved)
        assert owners() == {"10.5.0.9": "db", "10.5.0.8": "web"}
        with pytest.raises(AlreadyExists, match="is that of shop/db already"):
            await client.revert_service("shop", "web")
        await client.apply_project(_static_project(_static("db", ""), _static("web", "10.5.0.8")))
        assert owners() == {"10.5.0.8": "web"}
        await client.apply_project(other)
        await client.remove_project("shop")
        assert owners() == {"10.5.0.9": "db"}


@pytest.mark.parametrize(
    ("service", "told"),
    [
        (_static("web", "10.9.0.9"), "outside the network's 10.5.0.0/24"),
        (_static("web", "10.5.0.255"), "broadcast address"),
        (_static("web", "fd00::9"), "is an IPv6 address"),
        (_static("web", "10.5.0.9", replicas=2), "is to run several tasks"),
    ],
)
async def test_an_address_that_cannot_be_is_refused(service: ServiceSpec, told: str) -> None:
    """Whoever wrote the request: the message names the field and the reason."""
    async with cluster() as made, made.client() as client:
        with pytest.raises(InvalidRequest, match=told) as caught:
            await client.apply_project(_static_project(service))
        assert "services.web.networks.n.ipv4_address" in str(caught.value)


async def test_an_address_of_the_clusters_own_and_a_second_task_are_refused() -> None:
    """A file cannot take what dray gives out; who has one address cannot be scaled."""
    async with cluster() as made, made.client() as client:
        network = NetworkSpec("n", "shop_n", ipam_pools=(IpamPool("10.224.0.0/24"),))
        spec = ProjectSpec("shop", (_static("web", "10.224.0.9"),), (network,))
        with pytest.raises(InvalidRequest, match=r"the cluster's own range 10\.224\.0\.0/16"):
            await client.apply_project(spec)
        await client.apply_project(_static_project(_static("web", "10.5.0.9")))
        with pytest.raises(InvalidRequest, match="one address"):
            await client.scale_services("shop", {"web": 2})


async def test_projects_that_race_for_one_address(new_store: NewStore) -> None:
    """Of two that ask for it on two schedulers one gets it; the other is told whose it is."""
    async with (
        cluster(2, new_store=new_store) as made,
        made.client(made.schedulers[0]) as one,
        made.client(made.schedulers[1]) as two,
    ):
        asked = [_static_project(_static("web", "10.5.0.9"), name=f"p{n}") for n in range(2)]
        replies = await asyncio.gather(
            one.apply_project(asked[0]), two.apply_project(asked[1]), return_exceptions=True
        )
        (refused,) = [each for each in replies if isinstance(each, BaseException)]
        assert isinstance(refused, AlreadyExists)


async def test_projects_that_race_share_no_address(new_store: NewStore) -> None:
    """Services that are created at once on two schedulers get addresses of their own."""
    async with cluster(2, new_store=new_store) as made:
        one, two = made.schedulers
        small = replace(made.first.mirror.snapshot.cluster, vip_range_cidr="10.224.0.0/29")
        await made.write(Put(keys.CLUSTER, encode(small)))
        async with made.client(one) as first, made.client(two) as second:
            await asyncio.gather(
                *(
                    client.apply_project(project_of(a_service("web"), name=f"p{number}"))
                    for number, client in enumerate([first, second] * 3)
                )
            )
            listed = (await first.list_services()).services
            assert len({each.record.vip for each in listed}) == 6
            with pytest.raises(ResourceExhausted, match="6 addresses"):
                await second.apply_project(project_of(a_service("web"), name="more"))
