"""How is dray's network made known to the Docker Engine?"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors
import docker.types

from dray.errors import FailedPrecondition
from node.network.observed import DockerNetwork
from node.network.plan import DOCKER_NETWORK
from node.runtime.docker_calls import EngineCalls

__all__ = ["EngineNetworks"]

CONNECT_TIMEOUT_S: Final = 2.0
ANSWER_TIMEOUT_S: Final = 20.0
_BRIDGE: Final = "com.docker.network.bridge.name"
_MASQUERADE: Final = "com.docker.network.bridge.enable_ip_masquerade"
_MTU: Final = "com.docker.network.driver.mtu"
_MTU_DEFAULT: Final = 1_500


class EngineNetworks:
    """The Docker networks of one engine, as far as they are dray's."""

    def __init__(self, socket_path: Path) -> None:
        """Refer to an engine; nothing is connected yet."""
        self._calls = EngineCalls(
            socket_path, connect_timeout_s=CONNECT_TIMEOUT_S, answer_timeout_s=ANSWER_TIMEOUT_S
        )

    async def find(self) -> DockerNetwork | None:
        """Return dray's network, or None if the engine has none.

        Raises:
            Unavailable: The engine cannot be reached.
            DeadlineExceeded: It does not answer.
        """
        try:
            found = await self._calls.call(lambda client: client.inspect_network(DOCKER_NETWORK))
        except docker.errors.NotFound:
            return None
        except docker.errors.APIError as error:
            raise _refused("look for", error) from error
        return _network(found)

    async def create(self, network: DockerNetwork) -> None:
        """Make the network; its bridge appears with it.

        Raises:
            FailedPrecondition: The engine refuses; the message has its words.
        """

        def create(client: docker.APIClient) -> None:
            pool = docker.types.IPAMPool(subnet=network.subnet, gateway=network.gateway)
            client.create_network(
                DOCKER_NETWORK,
                driver="bridge",
                ipam=docker.types.IPAMConfig(pool_configs=[pool]),
                options={
                    _BRIDGE: network.bridge,
                    _MASQUERADE: "true" if network.masquerades else "false",
                    _MTU: str(network.mtu),
                },
            )

        try:
            await self._calls.call(create)
        except docker.errors.APIError as error:
            raise _refused("make", error) from error

    async def remove(self) -> None:
        """Remove the network; one that is gone is fine.

        Raises:
            FailedPrecondition: Containers are attached to it.
        """
        try:
            await self._calls.call(lambda client: client.remove_network(DOCKER_NETWORK))
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            raise _refused("remove", error) from error

    async def container_ends(self) -> frozenset[int]:
        """Return the kernel's numbers of the host's ends of the containers' interfaces.

        Asks for every container of the network: only when something is known to be amiss.
        """
        try:
            return await self._calls.call(_container_ends)
        except docker.errors.APIError as error:
            raise _refused("look into", error) from error

    async def close(self) -> None:
        """Let go of the engine."""
        await self._calls.close()


def _container_ends(client: docker.APIClient) -> frozenset[int]:
    found = client.inspect_network(DOCKER_NETWORK).get("Containers") or {}
    ends = set()
    for container_id in found:
        # One that ends meanwhile, or shows nothing of itself, is left alone.
        with contextlib.suppress(docker.errors.NotFound, OSError, ValueError):
            pid = int(client.inspect_container(container_id)["State"]["Pid"])
            ends.add(int(Path(f"/proc/{pid}/root/sys/class/net/eth0/iflink").read_text()))
    return frozenset(ends)


def _network(found: dict[str, Any]) -> DockerNetwork:
    pools = (found.get("IPAM") or {}).get("Config") or [{}]
    options = found.get("Options") or {}
    containers = (found.get("Containers") or {}).values()
    mtu = options.get(_MTU, "")
    return DockerNetwork(
        subnet=str(pools[0].get("Subnet", "")),
        gateway=str(pools[0].get("Gateway", "")).partition("/")[0],
        bridge=str(options.get(_BRIDGE, "")),
        mtu=int(mtu) if mtu.isdecimal() else _MTU_DEFAULT,
        masquerades=options.get(_MASQUERADE, "true") == "true",
        containers=tuple(sorted(str(each.get("Name", "")) for each in containers)),
    )


def _refused(verb: str, error: docker.errors.APIError) -> FailedPrecondition:
    said = " ".join(str(error.explanation or error).split())[:500]
    return FailedPrecondition(
        f"the Docker Engine did not {verb} the network {DOCKER_NETWORK}: {said}", retryable=True
    )
