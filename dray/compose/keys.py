"""Which keys does the Compose Specification have, and what may each hold?

One table, as data. The structural check, the long forms and the printed shape read it, and so does
the table of treatments. A path pattern is written like "services.*.ports[].target": `*` stands for
a name the file chooses, `[]` for the items of a list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from dray.compose.kinds import Kind, either, list_of, map_of, record, scalar

__all__ = ["COMPOSE", "Kind", "key_paths"]

_TEXT = scalar("text")
_NULL = Kind(("null",))
_FLAG = scalar("boolean", "text", form="flag")
_MAYBE_FLAG = replace(_FLAG, keep=True)
_PURE_FLAG = scalar("boolean", form="flag")
_NUMBER = scalar("number", "text", form="integer")
_INTEGER = scalar("integer", "text", form="integer")
_MAYBE_INTEGER = replace(_INTEGER, keep=True)
_MAYBE_COUNT = scalar("integer", "text", form="count", keep=True)
_COUNT = scalar("integer", "text", form="count")
_CPUS = scalar("number", "text", form="float")
_BYTES = scalar("number", "text", form="bytes")
_DURATION = scalar("text", form="duration")
_MAYBE_DURATION = replace(_DURATION, keep=True)
_TEXTS = list_of(_TEXT)
_UNIQUE_TEXTS = list_of(_TEXT, unique=True)
_TEXT_OR_TEXTS = either(_TEXT, _UNIQUE_TEXTS, form="texts")
_ANYTHING = scalar("text", "number", "boolean", "null", form="")
_PAIRS_BASE = either(map_of(_ANYTHING), _UNIQUE_TEXTS)
_LABELS = replace(_PAIRS_BASE, form="labels")
_VARIABLES = replace(_PAIRS_BASE, form="variables")
_PAIRS = replace(_PAIRS_BASE, form="pairs")
_OPTIONS = map_of(scalar("text", "number", form=""), form="options")
_COMMAND = either(_NULL, _TEXT, _TEXTS, form="command")
_HOSTS = either(map_of(either(_TEXT, _TEXTS)), _UNIQUE_TEXTS, form="hosts")
_EXTERNAL = either(scalar("boolean", "text"), record({"name": _TEXT}), form="flag")
_ORDER = scalar("text", choices=("start-first", "stop-first"))

_ULIMIT = either(
    scalar("integer", "text"),
    record({"hard": _INTEGER, "soft": _INTEGER}, "soft", "hard"),
    form="ulimit",
)
_ULIMITS = map_of(replace(_ULIMIT, keep=True))
_FILE_MOUNTS = list_of(
    either(
        _TEXT,
        record(
            {
                "source": _TEXT,
                "target": _TEXT,
                "uid": _TEXT,
                "gid": _TEXT,
                "mode": scalar("number", "text", form="mode", keep=True),
            }
        ),
    )
)
_DEVICE_FIELDS = {
    "capabilities": _UNIQUE_TEXTS,
    "count": scalar("text", "integer", form="device count"),
    "device_ids": _UNIQUE_TEXTS,
    "driver": _TEXT,
    "options": _PAIRS,
}
_HOOK_FIELDS = {
    "command": replace(_COMMAND, keep=True),
    "user": _TEXT,
    "privileged": _FLAG,
    "working_dir": _TEXT,
    "environment": _VARIABLES,
}
_HOOK = record(_HOOK_FIELDS, "command", always=("command",))
_PRE_START_HOOK = record(
    {**_HOOK_FIELDS, "image": _TEXT, "per_replica": _FLAG}, always=("command",)
)

_BUILD = either(
    _TEXT,
    record(
        {
            "context": _TEXT,
            "dockerfile": _TEXT,
            "dockerfile_inline": _TEXT,
            "entitlements": _TEXTS,
            "args": _VARIABLES,
            "ssh": replace(_PAIRS_BASE, form="ssh"),
            "labels": _LABELS,
            "cache_from": _TEXTS,
            "cache_to": _TEXTS,
            "no_cache": _FLAG,
            "no_cache_filter": _TEXT_OR_TEXTS,
            "additional_contexts": _PAIRS,
            "network": _TEXT,
            "provenance": scalar("text", "boolean"),
            "sbom": scalar("text", "boolean"),
            "pull": _FLAG,
            "target": _TEXT,
            "shm_size": scalar("integer", "text", form="bytes"),
            "extra_hosts": _HOSTS,
            "isolation": _TEXT,
            "privileged": _FLAG,
            "secrets": _FILE_MOUNTS,
            "tags": _TEXTS,
            "ulimits": _ULIMITS,
            "platforms": _TEXTS,
        }
    ),
)

_BLKIO_LIMITS = list_of(
    record(
        {"path": _TEXT, "rate": scalar("integer", "text", form="bytes", keep=True)},
        extensions=False,
        form="capitals",
    )
)
_BLKIO = record(
    {
        "device_read_bps": _BLKIO_LIMITS,
        "device_read_iops": _BLKIO_LIMITS,
        "device_write_bps": _BLKIO_LIMITS,
        "device_write_iops": _BLKIO_LIMITS,
        "weight": _COUNT,
        "weight_device": list_of(
            record({"path": _TEXT, "weight": _COUNT}, extensions=False, form="capitals")
        ),
    },
    extensions=False,
)

_UPDATE = record(
    {
        "parallelism": _MAYBE_COUNT,
        "delay": _DURATION,
        "failure_action": _TEXT,
        "monitor": _DURATION,
        "max_failure_ratio": scalar("number", "text", form="float"),
        "order": _ORDER,
    }
)
_DEVICES = list_of(record(_DEVICE_FIELDS, "capabilities"))
_GENERIC = list_of(
    record(
        {
            "discrete_resource_spec": record(
                {
                    "kind": replace(_TEXT, keep=True),
                    "value": scalar("number", "text", form="integer", keep=True),
                }
            )
        }
    )
)
_DEPLOY = either(
    _NULL,
    record(
        {
            "mode": _TEXT,
            "endpoint_mode": _TEXT,
            "replicas": _MAYBE_INTEGER,
            "labels": _LABELS,
            "rollback_config": _UPDATE,
            "update_config": _UPDATE,
            "resources": record(
                {
                    "limits": record(
                        {"cpus": _CPUS, "memory": replace(_TEXT, form="bytes"), "pids": _INTEGER}
                    ),
                    "reservations": record(
                        {
                            "cpus": _CPUS,
                            "memory": replace(_TEXT, form="bytes"),
                            "generic_resources": _GENERIC,
                            "devices": _DEVICES,
                        }
                    ),
                }
            ),
            "restart_policy": record(
                {
                    "condition": _TEXT,
                    "delay": _MAYBE_DURATION,
                    "max_attempts": _MAYBE_COUNT,
                    "window": _MAYBE_DURATION,
                }
            ),
            "placement": record(
                {
                    "constraints": _TEXTS,
                    "preferences": list_of(record({"spread": _TEXT})),
                    "max_replicas_per_node": _COUNT,
                }
            ),
        },
        always=("resources", "placement"),
    ),
)

_DEVELOP = either(
    _NULL,
    record(
        {
            "watch": list_of(
                record(
                    {
                        "ignore": _TEXT_OR_TEXTS,
                        "include": _TEXT_OR_TEXTS,
                        "path": replace(_TEXT, keep=True),
                        "action": scalar(
                            "text",
                            choices=("rebuild", "sync", "restart", "sync+restart", "sync+exec"),
                            keep=True,
                        ),
                        "target": _TEXT,
                        "exec": _HOOK,
                        "initial_sync": _PURE_FLAG,
                    },
                    "path",
                    "action",
                    always=("exec",),
                )
            )
        }
    ),
)

_HEALTHCHECK = record(
    {
        "disable": _FLAG,
        "interval": _MAYBE_DURATION,
        "retries": scalar("number", "text", form="count", keep=True),
        "test": either(_TEXT, _TEXTS, form="test"),
        "timeout": _MAYBE_DURATION,
        "start_period": _MAYBE_DURATION,
        "start_interval": _MAYBE_DURATION,
    }
)

_DEPENDS_ON = either(
    _UNIQUE_TEXTS,
    map_of(
        record(
            {
                "restart": _FLAG,
                "required": replace(_PURE_FLAG, keep=True),
                "condition": scalar(
                    "text",
                    choices=(
                        "service_started",
                        "service_healthy",
                        "service_completed_successfully",
                    ),
                ),
            },
            "condition",
        ),
        names=True,
    ),
)

_SERVICE_NETWORKS = either(
    _UNIQUE_TEXTS,
    map_of(
        either(
            record(
                {
                    "aliases": _UNIQUE_TEXTS,
                    "interface_name": _TEXT,
                    "ipv4_address": _TEXT,
                    "ipv6_address": _TEXT,
                    "link_local_ips": _UNIQUE_TEXTS,
                    "mac_address": _TEXT,
                    "driver_opts": _OPTIONS,
                    "priority": scalar("number", form="integer"),
                    "gw_priority": scalar("number", form="integer"),
                }
            ),
            _NULL,
        ),
        names=True,
    ),
)

_MODELS_OF_SERVICE = either(
    _UNIQUE_TEXTS,
    map_of(either(record({"endpoint_var": _TEXT, "model_var": _TEXT}), _NULL)),
)

_PORTS = Kind(
    items=either(
        scalar("number", "text"),
        record(
            {
                "name": _TEXT,
                "mode": _TEXT,
                "host_ip": _TEXT,
                "target": scalar("integer", "text", form="count"),
                "published": scalar("text", "integer"),
                "protocol": _TEXT,
                "app_protocol": _TEXT,
            }
        ),
    ),
    unique=True,
)

_VOLUMES_OF_SERVICE = list_of(
    either(
        _TEXT,
        record(
            {
                "type": scalar(
                    "text", choices=("bind", "volume", "tmpfs", "cluster", "npipe", "image")
                ),
                "source": _TEXT,
                "target": _TEXT,
                "read_only": _FLAG,
                "consistency": _TEXT,
                "bind": record(
                    {
                        "propagation": _TEXT,
                        "create_host_path": scalar("boolean", "text", form="opt out", keep=True),
                        "recursive": scalar(
                            "text", choices=("enabled", "disabled", "writable", "readonly")
                        ),
                        "selinux": scalar("text", choices=("z", "Z")),
                    }
                ),
                "volume": record({"labels": _PAIRS, "nocopy": _FLAG, "subpath": _TEXT}),
                "tmpfs": record(
                    {
                        "size": scalar("integer", "text", form="bytes", minimum=0),
                        "mode": scalar("number", "text", form="count"),
                    }
                ),
                "image": record({"subpath": _TEXT}),
            },
            "type",
        ),
    ),
    unique=True,
)

_ENV_FILE = either(
    _TEXT,
    list_of(
        either(
            _TEXT,
            record(
                {
                    "path": replace(_TEXT, keep=True),
                    "format": _TEXT,
                    "required": scalar("boolean", "text", form="opt out", keep=True),
                },
                "path",
                extensions=False,
            ),
        )
    ),
)

_PROVIDER_OPTION = scalar("text", "number", "boolean", form="")
_PROVIDER = record(
    {
        "type": _TEXT,
        "options": map_of(either(_PROVIDER_OPTION, list_of(_PROVIDER_OPTION)), form="lists"),
    },
    "type",
)

_SERVICE = record(
    {
        "annotations": _PAIRS,
        "attach": _MAYBE_FLAG,
        "blkio_config": _BLKIO,
        "build": _BUILD,
        "cap_add": _UNIQUE_TEXTS,
        "cap_drop": _UNIQUE_TEXTS,
        "cgroup": scalar("text", choices=("host", "private")),
        "cgroup_parent": _TEXT,
        "command": replace(_COMMAND, keep=True),
        "configs": _FILE_MOUNTS,
        "container_name": scalar("text", pattern="[a-zA-Z0-9][a-zA-Z0-9_.-]+"),
        "cpu_count": scalar("text", "integer", form="integer", minimum=0),
        "cpu_percent": scalar("text", "integer", form="float", minimum=0, maximum=100),
        "cpu_period": _NUMBER,
        "cpu_quota": _NUMBER,
        "cpu_rt_period": _NUMBER,
        "cpu_rt_runtime": _NUMBER,
        "cpu_shares": _NUMBER,
        "cpus": _CPUS,
        "cpuset": _TEXT,
        "credential_spec": record({"config": _TEXT, "file": _TEXT, "registry": _TEXT}),
        "depends_on": _DEPENDS_ON,
        "deploy": _DEPLOY,
        "develop": _DEVELOP,
        "device_cgroup_rules": _UNIQUE_TEXTS,
        "devices": list_of(
            either(
                _TEXT,
                record({"source": _TEXT, "target": _TEXT, "permissions": _TEXT}, "source"),
            )
        ),
        "dns": _TEXT_OR_TEXTS,
        "dns_opt": _UNIQUE_TEXTS,
        "dns_search": _TEXT_OR_TEXTS,
        "domainname": _TEXT,
        "entrypoint": replace(_COMMAND, keep=True),
        "env_file": _ENV_FILE,
        "environment": _VARIABLES,
        "expose": list_of(scalar("text", "number"), unique=True),
        "extends": either(
            _TEXT, record({"service": _TEXT, "file": _TEXT}, "service", extensions=False)
        ),
        "external_links": _UNIQUE_TEXTS,
        "extra_hosts": _HOSTS,
        "gpus": either(
            scalar("text", choices=("all",)), list_of(record({**_DEVICE_FIELDS}, form="open"))
        ),
        "group_add": list_of(scalar("text", "number"), unique=True),
        "healthcheck": _HEALTHCHECK,
        "hostname": _TEXT,
        "image": _TEXT,
        "init": _MAYBE_FLAG,
        "ipc": _TEXT,
        "isolation": _TEXT,
        "label_file": either(_TEXT, _TEXTS, form="texts"),
        "labels": _LABELS,
        "links": _UNIQUE_TEXTS,
        "logging": record(
            {
                "driver": _TEXT,
                "options": map_of(scalar("text", "number", "null", form=""), form="options"),
            }
        ),
        "mac_address": _TEXT,
        "mem_limit": _BYTES,
        "mem_reservation": scalar("text", "integer", form="bytes"),
        "mem_swappiness": scalar("integer", "text", form="bytes"),
        "memswap_limit": _BYTES,
        "models": _MODELS_OF_SERVICE,
        "network_mode": _TEXT,
        "networks": _SERVICE_NETWORKS,
        "oom_kill_disable": _FLAG,
        "oom_score_adj": scalar("text", "integer", form="integer", minimum=-1000, maximum=1000),
        "pid": scalar("text", "null"),
        "pids_limit": _NUMBER,
        "platform": _TEXT,
        "ports": _PORTS,
        "post_start": list_of(_HOOK),
        "pre_start": list_of(_PRE_START_HOOK),
        "pre_stop": list_of(_HOOK),
        "privileged": _FLAG,
        "profiles": _UNIQUE_TEXTS,
        "provider": _PROVIDER,
        "pull_policy": scalar(
            "text",
            pattern="always|never|build|if_not_present|missing|refresh|daily|weekly"
            "|every_([0-9]+[wdhms])+",
        ),
        "pull_refresh_after": scalar("text", form="unprinted"),
        "read_only": _FLAG,
        "restart": _TEXT,
        "runtime": _TEXT,
        "scale": _MAYBE_INTEGER,
        "secrets": _FILE_MOUNTS,
        "security_opt": _UNIQUE_TEXTS,
        "shm_size": _BYTES,
        "stdin_open": _FLAG,
        "stop_grace_period": _MAYBE_DURATION,
        "stop_signal": _TEXT,
        "storage_opt": map_of(_ANYTHING, form="options"),
        "sysctls": _PAIRS,
        "tmpfs": _TEXT_OR_TEXTS,
        "tty": _FLAG,
        "ulimits": _ULIMITS,
        "use_api_socket": _PURE_FLAG,
        "user": _TEXT,
        "userns_mode": _TEXT,
        "uts": _TEXT,
        "volumes": _VOLUMES_OF_SERVICE,
        "volumes_from": _UNIQUE_TEXTS,
        "working_dir": _TEXT,
    },
    always=("command", "entrypoint"),
)

_NETWORK = either(
    _NULL,
    record(
        {
            "name": _TEXT,
            "driver": _TEXT,
            "driver_opts": _OPTIONS,
            "ipam": record(
                {
                    "driver": _TEXT,
                    "config": list_of(
                        record(
                            {
                                "subnet": _TEXT,
                                "ip_range": _TEXT,
                                "gateway": _TEXT,
                                "aux_addresses": map_of(_TEXT, form="options"),
                            }
                        )
                    ),
                    "options": map_of(_TEXT, form="options"),
                }
            ),
            "external": _EXTERNAL,
            "internal": _FLAG,
            "attachable": _FLAG,
            "enable_ipv4": _MAYBE_FLAG,
            "enable_ipv6": _MAYBE_FLAG,
            "labels": _LABELS,
        },
        always=("ipam",),
    ),
)
_VOLUME = either(
    _NULL,
    record(
        {
            "name": _TEXT,
            "driver": _TEXT,
            "driver_opts": _OPTIONS,
            "external": _EXTERNAL,
            "labels": _LABELS,
        }
    ),
)
_FILE_FIELDS = {
    "name": _TEXT,
    "environment": _TEXT,
    "file": _TEXT,
    "external": _EXTERNAL,
    "labels": _LABELS,
    "template_driver": _TEXT,
}
_CONFIG = record({**_FILE_FIELDS, "content": _TEXT})
_SECRET = record({**_FILE_FIELDS, "driver": _TEXT, "driver_opts": _OPTIONS})
_MODEL = record(
    {
        "name": _TEXT,
        "model": _TEXT,
        "context_size": scalar("integer", form="integer"),
        "runtime_flags": _TEXTS,
    },
    "model",
)
_INCLUDE = list_of(
    either(
        _TEXT,
        record(
            {"path": _TEXT_OR_TEXTS, "env_file": _TEXT_OR_TEXTS, "project_directory": _TEXT},
            extensions=False,
        ),
    )
)

COMPOSE: Final = record(
    {
        "version": scalar("text", form="unprinted"),
        "name": _TEXT,
        "include": replace(_INCLUDE, form="unprinted"),
        "services": map_of(_SERVICE, names=True),
        "models": map_of(_MODEL),
        "networks": map_of(_NETWORK),
        "volumes": map_of(_VOLUME, names=True),
        "secrets": map_of(_SECRET, names=True),
        "configs": map_of(_CONFIG, names=True),
    }
)


def key_paths(kind: Kind = COMPOSE, prefix: str = "") -> Iterator[tuple[str, Kind]]:
    """Return every known key as its path pattern with its kind, parents first."""
    for name, inner in (kind.fields or {}).items():
        path = f"{prefix}.{name}" if prefix else name
        yield path, inner
        yield from key_paths(inner, path)
    if kind.values is not None:
        yield from key_paths(kind.values, f"{prefix}.*")
    if kind.items is not None:
        yield from key_paths(kind.items, f"{prefix}[]")
