"""Does every runtime bring images and volumes to the node as the port says?"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from dray.model import ImageOptions, Mount, MountKind, PullPolicy
from node.runtime.base import Pulled, PullProgress, Refusal, Refused, VolumeRequest
from tests.contract.runtime import rig as rigs
from tests.contract.runtime.rig import Rig, created, running


async def test_missing_fetches_only_what_is_not_here(rig: Rig) -> None:
    """With policy `missing` an image is fetched once, and then it can be run."""
    async with rig.runtime() as runtime:
        image = ImageOptions(await rig.offer_image())
        first = await runtime.pull(image)
        assert isinstance(first, Pulled)
        assert first.fetched
        assert first.platform.startswith("linux/")
        assert await runtime.pull(image) == replace(first, fetched=False)
        found = await runtime.inspect(await created(runtime, rig.request(image=image)))
        assert found is not None
        assert found.image_digest == first.image_digest


async def test_never_takes_what_is_here_and_refuses_the_rest(rig: Rig) -> None:
    """With policy `never` nothing is fetched."""
    async with rig.runtime() as runtime:
        here = ImageOptions(rigs.IMAGE, pull_policy=PullPolicy.NEVER)
        pulled = await runtime.pull(here)
        assert isinstance(pulled, Pulled)
        assert not pulled.fetched
        absent = ImageOptions(await rig.offer_image(), pull_policy=PullPolicy.NEVER)
        refused = await runtime.pull(absent)
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.IMAGE_NOT_FOUND


async def test_always_asks_the_registry(rig: Rig) -> None:
    """With policy `always` the registry is asked, and an equal image is not fetched again."""
    async with rig.runtime() as runtime:
        image = ImageOptions(await rig.offer_image(), pull_policy=PullPolicy.ALWAYS)
        first, second = await runtime.pull(image), await runtime.pull(image)
        assert isinstance(first, Pulled)
        assert first.fetched
        assert second == replace(first, fetched=False)


async def test_an_image_that_no_registry_has_is_refused(rig: Rig) -> None:
    """The registry's no is a refusal that trying again does not help."""
    async with rig.runtime() as runtime:
        offered = await rig.offer_image()
        refused = await runtime.pull(ImageOptions(offered.removesuffix(":1") + ":absent"))
        assert isinstance(refused, Refused)
        assert (refused.refusal, refused.retryable) == (Refusal.IMAGE_NOT_FOUND, False)


async def test_another_platform_is_refused(rig: Rig) -> None:
    """An image that is not made for the platform does not count as here."""
    async with rig.runtime() as runtime:
        wrong = ImageOptions(rigs.IMAGE, "linux/s390x", PullPolicy.NEVER)
        refused = await runtime.pull(wrong)
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.WRONG_PLATFORM


async def test_equal_pulls_are_one_and_everybody_hears_of_progress(rig: Rig) -> None:
    """Five who want the same image all get it; layers and bytes done never exceed the totals."""
    async with rig.runtime() as runtime:
        image = ImageOptions(await rig.offer_image())
        heard: list[PullProgress] = []
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            pulls = [
                group.create_task(runtime.pull(image, progress=heard.append)) for _ in range(5)
            ]
        digests = {pull.result().image_digest for pull in pulls}  # type: ignore[union-attr]
        assert len(digests) == 1
        assert heard
        assert heard[-1].layers_done == heard[-1].layers_total > 0
        assert all(each.bytes_done <= each.bytes_total for each in heard)


async def test_a_cancelled_pull_does_not_end_that_of_others(rig: Rig) -> None:
    """Who gives up leaves the others their image."""
    async with rig.runtime() as runtime:
        image = ImageOptions(await rig.offer_image())
        kept = asyncio.create_task(runtime.pull(image))
        given_up = asyncio.create_task(runtime.pull(image))
        await asyncio.sleep(0)
        given_up.cancel()
        pulled = await kept
        assert isinstance(pulled, Pulled)
        with pytest.raises(asyncio.CancelledError):
            await given_up


async def test_a_volume_is_made_once_and_never_of_another_driver(rig: Rig) -> None:
    """Making a volume again is fine; another driver under its name is refused."""
    async with rig.runtime() as runtime:
        name = rig.name()
        assert not await runtime.volume_exists(name)
        for _ in range(2):
            assert await runtime.ensure_volume(VolumeRequest(name)) is None
        assert await runtime.volume_exists(name)
        refused = await runtime.ensure_volume(VolumeRequest(name, driver="other"))
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.NAME_TAKEN


async def test_no_container_starts_on_a_volume_that_is_not_there(rig: Rig) -> None:
    """Docker would make an empty volume in silence; here its absence is a refusal."""
    async with rig.runtime() as runtime:
        name = rig.name()
        request = rig.request(mounts=(Mount(MountKind.VOLUME, name, "/data"),))
        refused = await runtime.create(request)
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.VOLUME_MISSING
        assert name in refused.message
        assert not await runtime.volume_exists(name)
        assert await runtime.ensure_volume(VolumeRequest(name)) is None
        await running(runtime, request)
        assert await runtime.volume_exists(name)


async def test_a_named_volume_outlives_its_container(rig: Rig) -> None:
    """Removing a container keeps the volumes that have names."""
    async with rig.runtime() as runtime:
        name = rig.name()
        assert await runtime.ensure_volume(VolumeRequest(name)) is None
        request = rig.request(mounts=(Mount(MountKind.VOLUME, name, "/data"),))
        await runtime.remove(await running(runtime, request))
        assert await runtime.volume_exists(name)


async def test_volumes_are_found_by_their_label(rig: Rig) -> None:
    """Those of other clusters, and those without a label, are left out."""
    async with rig.runtime() as runtime:
        first, second, other, bare = (rig.name() for _ in range(4))
        labels = (("dray.cluster-id", rig.cluster_id), ("dray.project", "shop"))
        for name in (second, first):
            assert await runtime.ensure_volume(VolumeRequest(name, labels=labels)) is None
        for name, given in ((other, (("dray.cluster-id", "other"),)), (bare, ())):
            assert await runtime.ensure_volume(VolumeRequest(name, labels=given)) is None
        found = await runtime.volumes(("dray.cluster-id", rig.cluster_id))
        assert [volume.name for volume in found] == sorted([first, second])
        assert {(volume.driver, volume.labels) for volume in found} == {("local", labels)}
        assert all(volume.created_unix_s > 0 for volume in found)


async def test_a_volume_is_removed_when_no_container_mounts_it(rig: Rig) -> None:
    """One in use is kept, whether its container runs or not; one that is gone is no trouble."""
    async with rig.runtime() as runtime:
        name = rig.name()
        assert await runtime.ensure_volume(VolumeRequest(name)) is None
        request = rig.request(mounts=(Mount(MountKind.VOLUME, name, "/data"),))
        container_id = await running(runtime, request)
        refused = await runtime.remove_volume(name)
        assert isinstance(refused, Refused)
        assert (name in refused.message, refused.retryable) == (True, True)
        assert await runtime.volume_exists(name)
        await runtime.remove(container_id)
        for _ in range(2):
            assert await runtime.remove_volume(name) is None
        assert not await runtime.volume_exists(name)
