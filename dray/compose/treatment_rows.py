"""How is each key of the Compose Specification and of `x-dray` treated? The table.

One row a key. Most rows are made by `_keys`: one treatment of several keys below a path.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dray.compose.treatment_kinds import DEFAULT_NAME, Executor, Row, Treatment, ValueRow
from dray.compose.xdray_table import PROJECT_WORDS, SERVICE_WORDS, Kind, Word

__all__ = ["ROWS", "VALUE_ROWS"]

_SERVICE: Final = "services.*."
_WINDOWS: Final = "it is for Windows containers"
_OTHER_NODE: Final = "the other container may run on another node"
_EMPTY: Final[tuple[object, ...]] = ({}, [])


def _keys(below: str, names: str, *executors: Executor, reason: str = "") -> list[Row]:
    """Return rows of honoured keys."""
    return [Row(below + name, executors=executors, reason=reason) for name in names.split()]


def _meaningless(below: str, names: str, reason: str) -> list[Row]:
    return [Row(below + name, Treatment.MEANINGLESS, reason=reason) for name in names.split()]


def _refused(
    below: str, names: str, reason: str, instead: str, *, is_vital: bool = False
) -> list[Row]:
    return [
        Row(below + name, Treatment.REFUSED, (), reason, instead, (), is_vital)
        for name in names.split()
    ]


def _top() -> list[Row]:
    return [
        *_meaningless("", "version", "the specification has no versions any more"),
        *_keys("", "name include", Executor.LOADER),
        *_keys("include[].", "path env_file project_directory", Executor.LOADER),
        *_keys("", "services services.*", Executor.LOADER),
        *_refused("", "models", "dray runs no models of its own", "run the model as a service"),
        *_refused("models.*.", "name model context_size runtime_flags", "see models", "see models"),
        *_keys("", "networks networks.* volumes volumes.*", Executor.LOADER),
        *_keys("", "configs configs.* secrets secrets.*", Executor.LOADER),
    ]


def _container() -> list[Row]:
    return [
        *_keys(
            _SERVICE,
            "annotations blkio_config cap_add cap_drop cgroup cgroup_parent command cpu_period"
            " cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset device_cgroup_rules"
            " devices dns dns_opt dns_search domainname entrypoint environment extra_hosts"
            " group_add healthcheck hostname init labels logging mem_limit mem_swappiness"
            " memswap_limit oom_kill_disable oom_score_adj ipc pid pids_limit privileged"
            " pull_policy pull_refresh_after read_only runtime security_opt shm_size stdin_open"
            " stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits user userns_mode"
            " uts working_dir",
            Executor.RUNTIME,
        ),
        *_keys(_SERVICE, "image", Executor.RUNTIME, reason="without it, what the client built"),
        *_keys(_SERVICE, "platform", Executor.PLACEMENT, Executor.RUNTIME),
        *_keys(_SERVICE + "blkio_config.", "weight weight_device", Executor.RUNTIME),
        *_keys(_SERVICE + "blkio_config.weight_device[].", "path weight", Executor.RUNTIME),
        *_keys(_SERVICE + "blkio_config.weight_device[].", "Path Weight", Executor.RUNTIME),
        *(
            row
            for name in ("read_bps", "read_iops", "write_bps", "write_iops")
            for row in [
                *_keys(f"{_SERVICE}blkio_config.", f"device_{name}", Executor.RUNTIME),
                *_keys(
                    f"{_SERVICE}blkio_config.device_{name}[].",
                    "path rate Path Rate",  # the official tool prints them with a capital
                    Executor.RUNTIME,
                ),
            ]
        ),
        *_keys(_SERVICE + "devices[].", "source target permissions", Executor.RUNTIME),
        *_keys(
            _SERVICE + "healthcheck.",
            "disable interval retries start_interval start_period test timeout",
            Executor.RUNTIME,
        ),
        *_keys(_SERVICE + "logging.", "driver options", Executor.RUNTIME),
        *_keys(_SERVICE + "ulimits.*.", "soft hard", Executor.RUNTIME),
    ]


def _life() -> list[Row]:
    return [
        *_keys(_SERVICE, "restart post_start pre_stop", Executor.AGENT),
        *(
            row
            for hook in ("post_start", "pre_stop")
            for row in _keys(
                f"{_SERVICE}{hook}[].",
                "command environment privileged user working_dir",
                Executor.AGENT,
            )
        ),
        *_refused(
            _SERVICE,
            "pre_start",
            "containers that run before a service are not built",
            "make it a job that the service depends on with service_completed_successfully",
        ),
        *_refused(
            _SERVICE + "pre_start[].",
            "command environment image per_replica privileged user working_dir",
            "see pre_start",
            "see pre_start",
        ),
        Row(
            _SERVICE + "isolation",
            Treatment.REFUSED,
            (),
            _WINDOWS,
            "remove it",
            ("default",),
        ),
        *_refused(_SERVICE, "cpu_count cpu_percent", _WINDOWS, "write cpus:"),
        *_refused(_SERVICE, "credential_spec", _WINDOWS, "remove it"),
        *_refused(_SERVICE + "credential_spec.", "config file registry", _WINDOWS, "remove it"),
        Row(
            _SERVICE + "use_api_socket",
            Treatment.REFUSED,
            (),
            "a task does not get the node's Docker Engine",
            "use dray's client library in it",
            (False,),
        ),
    ]


def _client_and_loader() -> list[Row]:
    watch = "only `docker compose watch` reads it"
    return [
        *_keys(_SERVICE, "extends profiles label_file", Executor.LOADER),
        *_keys(_SERVICE + "extends.", "service file", Executor.LOADER),
        *_keys(_SERVICE, "env_file", Executor.LOADER, reason="merged into environment"),
        *_keys(_SERVICE + "env_file[].", "path required format", Executor.LOADER),
        *_meaningless(_SERVICE, "attach", "`dray up` follows no logs; `dray logs` does"),
        *_meaningless(_SERVICE, "develop develop.watch", watch),
        *_meaningless(
            _SERVICE + "develop.watch[].",
            "action exec ignore include initial_sync path target",
            watch,
        ),
        *_meaningless(
            _SERVICE + "develop.watch[].exec.",
            "command environment privileged user working_dir",
            watch,
        ),
        *_meaningless(_SERVICE, "expose", "services on one network reach every port of each other"),
        *_keys(_SERVICE, "build", Executor.CLIENT_BUILD),
        *_keys(
            _SERVICE + "build.",
            "additional_contexts args cache_from cache_to context dockerfile dockerfile_inline"
            " entitlements extra_hosts isolation labels network no_cache no_cache_filter platforms"
            " privileged provenance pull sbom secrets shm_size ssh tags target ulimits",
            Executor.CLIENT_BUILD,
        ),
        *_keys(_SERVICE + "build.secrets[].", "source target", Executor.CLIENT_BUILD),
        *_meaningless(
            _SERVICE + "build.secrets[].",
            "uid gid mode",
            "the Dockerfile's own mount says who may read it",
        ),
        *_keys(_SERVICE + "build.ulimits.*.", "soft hard", Executor.CLIENT_BUILD),
        *_refused(
            _SERVICE, "models", "dray runs no models of its own", "run the model as a service"
        ),
        *_refused(_SERVICE + "models.*.", "endpoint_var model_var", "see models", "see models"),
        *_refused(
            _SERVICE,
            "provider",
            "dray calls no provider plugins",
            "make the service an image, or name what it provides with environment:",
            is_vital=True,
        ),
        *_refused(
            _SERVICE + "provider.", "type options", "see provider", "see provider", is_vital=True
        ),
    ]


def _deploy() -> list[Row]:
    deploy = _SERVICE + "deploy."
    update = "delay failure_action max_failure_ratio monitor order parallelism"
    devices = "capabilities count device_ids driver options"
    resources = deploy + "resources."
    generic = resources + "reservations.generic_resources"
    return [
        *_keys(_SERVICE, "deploy", Executor.RECONCILE),
        *_keys(_SERVICE, "scale", Executor.RECONCILE, reason="older form of deploy.replicas"),
        *_keys(deploy, "mode replicas", Executor.RECONCILE),
        *_keys(deploy, "labels", Executor.STORE),
        Row(deploy + "endpoint_mode", executors=(Executor.ROUTING,)),
        *(
            row
            for name in ("update_config", "rollback_config")
            for row in [
                Row(deploy + name, executors=(Executor.ROLLOUT,), neutral=_EMPTY),
                *_keys(f"{deploy}{name}.", update, Executor.ROLLOUT),
            ]
        ),
        Row(deploy + "restart_policy", executors=(Executor.AGENT,), neutral=_EMPTY),
        *_keys(deploy + "restart_policy.", "condition delay max_attempts window", Executor.AGENT),
        *_keys(deploy, "placement", Executor.PLACEMENT),
        *_keys(
            deploy + "placement.",
            "constraints preferences preferences[].spread max_replicas_per_node",
            Executor.PLACEMENT,
        ),
        *_keys(deploy, "resources", Executor.PLACEMENT),
        *_keys(resources, "limits", Executor.RUNTIME),
        *_keys(resources + "limits.", "cpus memory pids", Executor.RUNTIME),
        *_keys(resources, "reservations", Executor.PLACEMENT),
        *_keys(resources + "reservations.", "cpus memory", Executor.PLACEMENT),
        *_keys(_SERVICE, "mem_reservation", Executor.PLACEMENT),
        *_keys("", generic, Executor.PLACEMENT_DEVICES),
        *_keys(generic, "[].discrete_resource_spec", Executor.PLACEMENT_DEVICES),
        *_keys(generic + "[].discrete_resource_spec.", "kind value", Executor.PLACEMENT_DEVICES),
        *_keys(resources + "reservations.", "devices", Executor.PLACEMENT_DEVICES),
        *_keys(resources + "reservations.devices[].", devices, Executor.PLACEMENT_DEVICES),
        *_keys(_SERVICE, "gpus", Executor.PLACEMENT_DEVICES),
        *_keys(_SERVICE + "gpus[].", devices, Executor.PLACEMENT_DEVICES),
        *_keys(_SERVICE, "depends_on", Executor.DEPENDENCIES),
        *_keys(_SERVICE + "depends_on.*.", "condition", Executor.DEPENDENCIES),
        Row(
            _SERVICE + "depends_on.*.required",
            executors=(Executor.DEPENDENCY_OPTIONS,),
            neutral=(True,),
        ),
        Row(
            _SERVICE + "depends_on.*.restart",
            executors=(Executor.DEPENDENCY_OPTIONS,),
            neutral=(False,),
        ),
    ]


_ONE_INTERFACE: Final = "a container has one interface, on dray's network"
_OWN_NETWORK: Final = "every network is dray's own, with addresses of the cluster's range"
_SUBNETS: Final = f"{_OWN_NETWORK}; a subnet only says which `ipv4_address` a service may have"


def _network() -> list[Row]:
    one = _SERVICE + "networks.*."
    return [
        *_keys(_SERVICE, "networks", Executor.LOADER),
        Row(
            _SERVICE + "networks.*",
            executors=(Executor.NETWORK,),
            reason="every service is on `default` without asking for it",
        ),
        # What every service has without a word in the file.
        Row(_SERVICE + "networks.default", executors=(Executor.NETWORK,), neutral=(None, {})),
        *_keys(one, "aliases", Executor.DISCOVERY),
        *_meaningless(one, "driver_opts", _OWN_NETWORK),
        *_meaningless(one, "gw_priority priority", _ONE_INTERFACE),
        *_keys(
            one,
            "ipv4_address",
            Executor.ROUTING,
            reason="leads to the container, whose own interface has an address of the cluster's",
        ),
        *_keys(one, "ipv6_address", Executor.NETWORK_IPV6),
        *_keys(one, "interface_name link_local_ips mac_address", Executor.NETWORK_STATIC),
        *_keys(_SERVICE, "container_name", Executor.DISCOVERY),
        *_keys(_SERVICE, "links", Executor.DISCOVERY),
        *_keys(_SERVICE, "mac_address", Executor.NETWORK_STATIC),
        *_keys(_SERVICE, "network_mode", Executor.NETWORK),
        *_keys(_SERVICE, "ports", Executor.LOADER),
        *_keys(_SERVICE, "ports[]", Executor.ROUTING),
        *_keys(
            _SERVICE + "ports[].",
            "target published protocol mode host_ip name",
            Executor.ROUTING,
        ),
        *_keys(_SERVICE + "ports[].", "app_protocol", Executor.STORE, reason="shown to people"),
        *_refused(
            _SERVICE,
            "external_links",
            "a container that dray does not run has no name in the cluster",
            "share an external network with its service",
        ),
        *(
            row
            for kind in ("networks", "volumes", "configs", "secrets")
            for row in _keys(f"{kind}.*.", "external.name", Executor.LOADER, reason="older form")
        ),
        *_network_definitions(),
    ]


def _network_definitions() -> list[Row]:
    net = "networks.*."
    return [
        Row(net + "name", executors=(Executor.NETWORK,), neutral=(DEFAULT_NAME,)),
        *_keys(net, "labels", Executor.STORE),
        *_meaningless(net, "driver_opts", _OWN_NETWORK),
        *_meaningless(net, "attachable", "only containers that dray runs are on its networks"),
        *(
            Row(net + name, executors=(Executor.NETWORK,), neutral=(False,))
            for name in ("external", "internal")
        ),
        Row(
            net + "driver",
            Treatment.REFUSED,
            (),
            _OWN_NETWORK,
            "remove it",
            ("", "default"),
        ),
        Row(
            net + "enable_ipv4",
            Treatment.REFUSED,
            (),
            "services are found by IPv4",
            "remove it",
            (True,),
        ),
        Row(net + "enable_ipv6", executors=(Executor.NETWORK_IPV6,), neutral=(False,)),
        Row(net + "ipam", Treatment.MEANINGLESS, (), _SUBNETS, neutral=_EMPTY),
        *_meaningless(net + "ipam.", "driver options", _OWN_NETWORK),
        *_meaningless(net + "ipam.", "config", _SUBNETS),
        *_meaningless(
            net + "ipam.config[].",
            "subnet gateway",
            _SUBNETS,
        ),
        *_meaningless(net + "ipam.config[].", "ip_range aux_addresses", _OWN_NETWORK),
    ]


def _files() -> list[Row]:
    mount = _SERVICE + "volumes[]."
    return [
        *_keys(_SERVICE, "volumes", Executor.LOADER),
        *_keys(_SERVICE, "volumes[]", Executor.VOLUMES),
        *_keys(mount, "type source target read_only", Executor.VOLUMES),
        *_meaningless(mount, "consistency", "Docker on Linux has one consistency"),
        *_keys(mount, "bind volume", Executor.VOLUMES),
        *_keys(mount, "tmpfs image", Executor.RUNTIME),
        *_keys(mount + "bind.", "create_host_path propagation recursive selinux", Executor.VOLUMES),
        *_keys(mount + "volume.", "labels nocopy subpath", Executor.VOLUMES),
        *_keys(mount + "tmpfs.", "mode size", Executor.RUNTIME),
        *_keys(mount + "image.", "subpath", Executor.RUNTIME),
        *_refused(
            _SERVICE, "volumes_from", _OTHER_NODE, "name the volumes in both services instead"
        ),
        Row("volumes.*.name", executors=(Executor.VOLUMES,), neutral=(DEFAULT_NAME,)),
        Row("volumes.*.driver", executors=(Executor.VOLUMES,), neutral=("", "local")),
        *_keys("volumes.*.", "external driver_opts labels", Executor.VOLUMES),
        *_keys(_SERVICE, "configs secrets", Executor.FILES),
        *(
            row
            for kind in ("configs", "secrets")
            for row in _keys(f"{_SERVICE}{kind}[].", "source target uid gid mode", Executor.FILES)
        ),
        Row("configs.*.name", executors=(Executor.FILES,), neutral=(DEFAULT_NAME,)),
        *_keys("configs.*.", "content environment file", Executor.LOADER),
        *_keys("configs.*.", "external", Executor.FILES),
        *_keys("configs.*.", "labels", Executor.STORE),
        *_keys("configs.*.", "template_driver", Executor.TEMPLATES),
        Row("secrets.*.name", executors=(Executor.FILES,), neutral=(DEFAULT_NAME,)),
        *_keys("secrets.*.", "content environment file", Executor.LOADER),
        *_keys("secrets.*.", "external", Executor.FILES),
        *_keys("secrets.*.", "labels", Executor.STORE),
        *_keys("secrets.*.", "template_driver", Executor.TEMPLATES),
        *_refused(
            "secrets.*.",
            "driver driver_opts",
            "dray calls no secret drivers",
            "put the secret into a file or a variable",
        ),
    ]


def _words(below: str, words: Iterable[Word], around: Executor | None = None) -> list[Row]:
    """Return a row a word of `x-dray`, those inside a word below it."""
    rows: list[Row] = []
    for word in words:
        executor = word.executor or around
        assert executor is not None, word.name
        path = f"{below}.{word.name}"
        neutral: tuple[object, ...] = ()
        if word.kind is Kind.FLAG:
            neutral = (False,)
        elif word.kind is Kind.CHOICE:
            neutral = word.choices[:1]  # the first one is the default
        elif word.low < 0:
            neutral = (0,)
        rows.append(Row(path, executors=(executor,), reason=word.means, neutral=neutral))
        rows += _words(f"{path}[]" if word.kind is Kind.RULES else path, word.words, executor)
    return rows


ROWS: Final[tuple[Row, ...]] = (
    *_top(),
    *_container(),
    *_life(),
    *_client_and_loader(),
    *_deploy(),
    *_network(),
    *_files(),
    Row("x-dray", executors=(Executor.LOADER,), reason="what dray adds to Compose"),
    *_words("x-dray", PROJECT_WORDS),
    Row(_SERVICE + "x-dray", executors=(Executor.LOADER,), reason="what dray adds"),
    *_words(_SERVICE + "x-dray", SERVICE_WORDS),
)
"""Every key, in the order of the document."""


def _values(path: str, values: str, *executors: Executor, key: str = "") -> ValueRow:
    return ValueRow(path, tuple(values.split()), Row(path, executors=executors), key)


def _no(
    path: str, values: str, reason: str, instead: str, *, key: str = "", is_vital: bool = False
) -> ValueRow:
    row = Row(path, Treatment.REFUSED, (), reason, instead, (), is_vital)
    return ValueRow(path, tuple(values.split()), row, key)


_GPUS: Final = "dray sets GPUs aside by number, and nodes have different ones"

VALUE_ROWS: Final[tuple[ValueRow, ...]] = (
    _values(_SERVICE + "deploy.mode", "global", Executor.RECONCILE_GLOBAL),
    _values(_SERVICE + "deploy.mode", "replicated-job global-job", Executor.JOBS),
    _values(_SERVICE + "deploy.endpoint_mode", "dnsrr", Executor.DISCOVERY),
    _values(_SERVICE + "ports[]", "host", Executor.PLACEMENT_PORTS, Executor.ROUTING, key="mode"),
    _values(_SERVICE + "pull_policy", "build", Executor.CLIENT_BUILD),
    ValueRow(
        "networks.*.driver",
        ("bridge", "overlay"),
        Row("networks.*.driver", Treatment.MEANINGLESS, (), _OWN_NETWORK),
    ),
    _values(_SERVICE + "network_mode", "host none", Executor.RUNTIME),
    _values(_SERVICE + "network_mode", "service:*", Executor.PLACEMENT_AFFINITY, Executor.NETWORK),
    _no(
        _SERVICE + "network_mode",
        "container:*",
        "dray does not run the other container, and it may be on another node",
        "use network_mode: service:… or a network",
        is_vital=True,
    ),
    _no(
        _SERVICE + "network_mode",
        "*",
        "Docker's own networks end at the node",
        "remove network_mode, or name the network under networks:",
    ),
    *(
        _no(_SERVICE + key, "service:* container:*", _OTHER_NODE, f"remove {key}")
        for key in ("ipc", "pid", "uts")
    ),
    _values(_SERVICE + "volumes[]", "tmpfs image", Executor.RUNTIME, key="type"),
    _no(_SERVICE + "volumes[]", "npipe", _WINDOWS, "use a bind mount", key="type"),
    _no(
        _SERVICE + "volumes[]",
        "cluster",
        "dray has no CSI volumes",
        "use a volume with a driver",
        key="type",
    ),
    _no(_SERVICE + "gpus[]", "-1 all", _GPUS, "write count: with a number", key="count"),
    _no(
        _SERVICE + "deploy.resources.reservations.devices[]",
        "-1 all",
        _GPUS,
        "write count: with a number",
        key="count",
    ),
)
"""Values that need another executor than their key, or are refused; the first that fits counts."""
