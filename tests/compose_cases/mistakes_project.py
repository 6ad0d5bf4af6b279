"""Mistakes in short syntaxes, references and limits, with the exact messages."""

from __future__ import annotations

__all__ = ["MISTAKES"]

# What it is, the file, and every problem that is told.
MISTAKES: list[tuple[str, str, list[str]]] = [
    (
        "not a mapping",
        "- a\n",
        [
            "compose.yaml:1:1: must be a mapping, not a list",
        ],
    ),
    (
        "empty file",
        "# nothing\n",
        [
            "compose.yaml:1:1: is empty (a Compose file has `services:`)",
        ],
    ),
    (
        "empty document",
        "---\n",
        [
            "compose.yaml:1:1: must be a mapping, not nothing",
        ],
    ),
    (
        "short port without a target",
        "services:\n  web:\n    image: x\n    ports: ['80:']\n",
        [
            "compose.yaml:4:13: services.web.ports[0]: '80:' names no container port",
        ],
    ),
    (
        "port above 65535",
        "services:\n  web:\n    image: x\n    ports: ['70000:80']\n",
        [
            "compose.yaml:4:13: services.web.ports[0]: '70000:80' has no proper published "
            "port: '70000' is not within 0 to 65535",
        ],
    ),
    (
        "port is a word",
        "services:\n  web:\n    image: x\n    ports: ['http:80']\n",
        [
            "compose.yaml:4:13: services.web.ports[0]: 'http:80' has no proper published "
            "port: 'http'",
        ],
    ),
    (
        "port of an unknown protocol",
        "services:\n  web:\n    image: x\n    ports: ['53:53/dns']\n",
        [
            "compose.yaml:4:13: services.web.ports[0]: '53:53/dns' has the protocol 'dns'; "
            "known are tcp, udp and sctp",
        ],
    ),
    (
        "port ranges of different lengths",
        "services:\n  web:\n    image: x\n    ports: ['80-82:90-95']\n",
        [
            "compose.yaml:4:13: services.web.ports[0]: '80-82:90-95' has ranges of different "
            "lengths",
        ],
    ),
    (
        "port with a bad address",
        "services:\n  web:\n    image: x\n    ports: ['1.2.3:80:80']\n",
        [
            "compose.yaml:4:13: services.web.ports[0]: '1.2.3:80:80' has no proper address: "
            "'1.2.3'",
        ],
    ),
    (
        "long port with a bad address",
        "services:\n  web:\n    image: x\n    ports: [{target: 80, host_ip: here}]\n",
        [
            "compose.yaml:4:35: services.web.ports[0].host_ip: 'here' is not an address",
        ],
    ),
    (
        "long port without a target",
        "services:\n  web:\n    image: x\n    ports: [{published: '80'}]\n",
        [
            "compose.yaml:4:13: services.web.ports[0]: lacks the key 'target'",
        ],
    ),
    (
        "volume with an empty section",
        "services:\n  web:\n    image: x\n    volumes: ['data::ro']\n",
        [
            "compose.yaml:4:15: services.web.volumes[0]: 'data::ro' has an empty section "
            "between colons",
        ],
    ),
    (
        "volume with too many colons",
        "services:\n  web:\n    image: x\n    volumes: ['data:/b:ro:x']\n",
        [
            "compose.yaml:4:15: services.web.volumes[0]: 'data:/b:ro:x' has too many colons",
        ],
    ),
    (
        "bind without a source",
        "services:\n  web:\n    image: x\n    volumes: [{type: bind, target: /b}]\n",
        [
            "compose.yaml:4:15: services.web.volumes[0]: a bind mount needs a source",
        ],
    ),
    (
        "mount without a target",
        "services:\n  web:\n    image: x\n    volumes: [{type: tmpfs}]\n",
        [
            "compose.yaml:4:15: services.web.volumes[0]: lacks the key 'target'",
        ],
    ),
    (
        "two mounts on one path",
        "services:\n  web:\n    image: x\n    tmpfs: /run\n    volumes: ['/a:/run']\n",
        [
            "compose.yaml:5:15: services.web.volumes[0]: /run is already mounted by tmpfs[0]",
        ],
    ),
    (
        "device with too many colons",
        "services:\n  web:\n    image: x\n    devices: ['/a:/b:r:w']\n",
        [
            "compose.yaml:4:15: services.web.devices[0]: '/a:/b:r:w' has too many colons: "
            "use the long syntax",
        ],
    ),
    (
        "host without an address",
        "services:\n  web:\n    image: x\n    extra_hosts: [db]\n",
        [
            "compose.yaml:4:18: services.web.extra_hosts: 'db' lacks an address",
        ],
    ),
    (
        "command with an open quote",
        "services:\n  web:\n    image: x\n    command: echo 'a\n",
        [
            'compose.yaml:4:14: services.web.command: "echo \'a" has a quote, bracket or '
            "backslash without its end",
        ],
    ),
    (
        "unknown variable form",
        "services:\n  web:\n    image: ${TAG\n",
        [
            "compose.yaml:3:12: services.web.image: '${TAG' has a malformed variable (a "
            "plain dollar sign is written $$)",
        ],
    ),
    (
        "variable name with a digit first",
        "services:\n  web:\n    image: 'x:${1TAG}'\n",
        [
            "compose.yaml:3:12: services.web.image: 'x:${1TAG}' has a malformed variable (a "
            "plain dollar sign is written $$)",
        ],
    ),
    (
        "required variable",
        "services:\n  web:\n    image: 'x:${TAG:?set the tag}'\n",
        [
            "compose.yaml:3:12: services.web.image: required variable TAG is missing a "
            "value: set the tag (set it, or put it in .env)",
        ],
    ),
    (
        "required variable without a text",
        "services:\n  web:\n    image: 'x:${TAG?}'\n",
        [
            "compose.yaml:3:12: services.web.image: required variable TAG is missing a value "
            "(set it, or put it in .env)",
        ],
    ),
    (
        "neither image nor build",
        "services:\n  web:\n    restart: always\n",
        [
            "compose.yaml:2:3: services.web: has neither an image nor a build (add `image:` "
            "or `build:`)",
        ],
    ),
    (
        "undefined network",
        "services:\n  web:\n    image: x\n    networks: [bak]\nnetworks: {back: }\n",
        [
            "compose.yaml:4:16: services.web.networks.bak: there is no network 'bak' (did "
            "you mean 'back'?)",
        ],
    ),
    (
        "undefined volume",
        "services:\n  web:\n    image: x\n    volumes: ['data:/d']\n",
        [
            "compose.yaml:4:15: services.web.volumes[0]: there is no volume 'data' (define "
            "it under `volumes:`)",
        ],
    ),
    (
        "undefined secret",
        "services:\n  web:\n    image: x\n    secrets: [key]\n",
        [
            "compose.yaml:4:15: services.web.secrets[0]: there is no secret 'key' (define it "
            "under `secrets:`)",
        ],
    ),
    (
        "undefined config",
        "services:\n  web:\n    image: x\n    configs: [conf]\n",
        [
            "compose.yaml:4:15: services.web.configs[0]: there is no config 'conf' (define "
            "it under `configs:`)",
        ],
    ),
    (
        "undefined model",
        "services:\n  web:\n    image: x\n    models: [llm]\n",
        [
            "compose.yaml:4:14: services.web.models.llm: there is no model 'llm' (define it "
            "under `models:`)",
        ],
    ),
    (
        "undefined dependency",
        "services:\n  web: {image: x, depends_on: [database]}\n  databse: {image: y}\n",
        [
            "compose.yaml:2:32: services.web.depends_on.database: there is no service "
            "'database' (did you mean 'databse'?)",
        ],
    ),
    (
        "undefined service of a namespace",
        "services:\n  web:\n    image: x\n    network_mode: service:db\n",
        [
            "compose.yaml:4:19: services.web.depends_on.db: there is no service 'db' (define "
            "it under `services:`)",
        ],
    ),
    (
        "undefined link",
        "services:\n  web:\n    image: x\n    links: ['db:data']\n",
        [
            "compose.yaml:4:12: services.web.depends_on.db: there is no service 'db' (define "
            "it under `services:`)",
        ],
    ),
    (
        "undefined build secret",
        "services:\n  web:\n    build: {context: ., secrets: [key]}\n",
        [
            "compose.yaml:3:35: services.web.build.secrets[0]: there is no secret 'key' "
            "(define it under `secrets:`)",
        ],
    ),
    (
        "undefined build context",
        "services:\n  web:\n    build: {context: ., additional_contexts: {b: 'service:base'}}\n",
        [
            "compose.yaml:3:50: services.web.build.additional_contexts.b: there is no "
            "service 'base' (define it under `services:`)",
        ],
    ),
    (
        "dependency on itself",
        "services:\n  web:\n    image: x\n    depends_on: [web]\n",
        [
            "compose.yaml:4:18: services.web.depends_on.web: services depend on one another "
            "in a cycle: web -> web",
        ],
    ),
    (
        "dependency cycle",
        "services:\n"
        "  a: {image: x, depends_on: [b]}\n"
        "  b: {image: x, depends_on: [c]}\n"
        "  c: {image: x, depends_on: [a]}\n",
        [
            "compose.yaml:4:30: services.c.depends_on.a: services depend on one another in a "
            "cycle: a -> b -> c -> a",
        ],
    ),
    (
        "network mode and networks",
        "services:\n  web:\n    image: x\n    network_mode: host\n    networks: [default]\n",
        [
            "compose.yaml:4:19: services.web.network_mode: cannot be combined with networks",
            "compose.yaml:5:16: services.web.networks.default: there is no network 'default' "
            "(define it under `networks:`)",
        ],
    ),
    (
        "scale against replicas",
        "services:\n  web:\n    image: x\n    scale: 2\n    deploy: {replicas: 3}\n",
        [
            "compose.yaml:4:12: services.web.scale: is 2, but deploy.replicas is 3",
        ],
    ),
    (
        "negative scale",
        "services:\n  web:\n    image: x\n    scale: -1\n",
        [
            "compose.yaml:4:12: services.web.scale: must be 0 or more, not -1",
        ],
    ),
    (
        "several containers of one name",
        "services:\n  web:\n    image: x\n    scale: 2\n    container_name: web1\n",
        [
            "compose.yaml:5:21: services.web.container_name: cannot name 2 containers alike",
        ],
    ),
    (
        "memory twice",
        "services:\n"
        "  web:\n"
        "    image: x\n"
        "    mem_limit: 1g\n"
        "    deploy: {resources: {limits: {memory: 2g}}}\n",
        [
            "compose.yaml:4:16: services.web.mem_limit: is not the same as "
            "deploy.resources.limits.memory (set only one of them)",
        ],
    ),
    (
        "health test without a kind",
        "services:\n  web:\n    image: x\n    healthcheck: {test: [curl, localhost]}\n",
        [
            "compose.yaml:4:19: services.web.healthcheck.test: must start with CMD, "
            "CMD-SHELL or NONE (or write it as one text)",
        ],
    ),
    (
        "two dockerfiles",
        "services:\n  web:\n    build: {context: ., dockerfile: a, dockerfile_inline: FROM x}\n",
        [
            "compose.yaml:3:59: services.web.build.dockerfile_inline: cannot be combined "
            "with dockerfile",
        ],
    ),
    (
        "platform that is not built",
        "services:\n"
        "  web:\n"
        "    image: x\n"
        "    platform: linux/arm64\n"
        "    build: {context: ., platforms: [linux/amd64]}\n",
        [
            "compose.yaml:5:25: services.web.build.platforms: must include the service's "
            "platform 'linux/arm64'",
        ],
    ),
    (
        "watch without a target",
        "services:\n  web:\n    image: x\n    develop: {watch: [{path: ., action: sync}]}\n",
        [
            "compose.yaml:4:23: services.web.develop.watch[0]: the action sync needs a target",
        ],
    ),
    (
        "watch without an action",
        "services:\n  web:\n    image: x\n    develop: {watch: [{path: .}]}\n",
        [
            "compose.yaml:4:23: services.web.develop.watch[0]: lacks the key 'action'",
        ],
    ),
    (
        "secret without content",
        "services: {a: {image: x}}\nsecrets: {s: {}}\n",
        [
            "compose.yaml:2:14: secrets.s: has no content (name one of file or environment)",
        ],
    ),
    (
        "secret with two sources",
        "services: {a: {image: x}}\nsecrets: {s: {file: a, environment: B}}\n",
        [
            "compose.yaml:2:24: secrets.s: has both file and environment (name only one of "
            "file or environment)",
        ],
    ),
    (
        "config without content",
        "services: {a: {image: x}}\nconfigs: {c: {name: d}}\n",
        [
            "compose.yaml:2:14: configs.c: has no content (name one of file, environment or "
            "content)",
        ],
    ),
    (
        "external volume with a driver",
        "services: {a: {image: x}}\nvolumes: {v: {external: true, driver: nfs}}\n",
        [
            "compose.yaml:2:31: volumes.v.driver: cannot be said of an external volume",
        ],
    ),
    (
        "external name twice",
        "services: {a: {image: x}}\nnetworks: {n: {name: a, external: {name: b}}}\n",
        [
            "compose.yaml:2:42: networks.n.external.name: name and external.name are not the "
            "same (use only name)",
        ],
    ),
    (
        "model without a model",
        "services: {a: {image: x}}\nmodels: {m: {context_size: 5}}\n",
        [
            "compose.yaml:2:13: models.m: lacks the key 'model'",
        ],
    ),
    (
        "extends nothing that is there",
        "services:\n  a: {image: x, extends: basis}\n  base: {image: x}\n",
        [
            "compose.yaml:2:26: services.a.extends: there is no service 'basis' in compose.yaml",
        ],
    ),
    (
        "extends itself",
        "services:\n  web:\n    image: x\n    extends: web\n",
        [
            "compose.yaml:4:14: services.web.extends: services extend one another in a "
            "cycle: web -> web",
        ],
    ),
    (
        "extends a file that is not there",
        "services:\n  web:\n    image: x\n    extends: {file: other.yaml, service: web}\n",
        [
            "compose.yaml:4:14: services.web.extends: there is no file other.yaml",
        ],
    ),
    (
        "extends without a service",
        "services:\n  web:\n    image: x\n    extends: {file: other.yaml}\n",
        [
            "compose.yaml:4:14: services.web.extends: lacks the key 'service'",
        ],
    ),
    (
        "include of a file that is not there",
        "include: [other.yaml]\nservices: {a: {image: x}}\n",
        [
            "compose.yaml:1:11: include[0]: there is no file other.yaml",
        ],
    ),
    (
        "include of itself",
        "include: [compose.yaml]\nservices: {a: {image: x}}\n",
        [
            "compose.yaml:1:11: include[0]: files include one another in a cycle: "
            "compose.yaml -> compose.yaml",
        ],
    ),
    (
        "include is text",
        "include: other.yaml\n",
        [
            "compose.yaml:1:10: include: must be a list, not the text 'other.yaml'",
        ],
    ),
    (
        "env file that is not there",
        "services:\n  web:\n    image: x\n    env_file: app.env\n",
        [
            "compose.yaml:4:15: services.web.env_file[0]: there is no file app.env",
        ],
    ),
    (
        "env file of an unknown format",
        "services:\n  web:\n    image: x\n    env_file: [{path: bad.env, format: ini}]\n",
        [
            "compose.yaml:4:23: services.web.env_file[0]: 'ini' is not a format of env files "
            "(leave it out, or write raw)",
        ],
    ),
    (
        "env file with a bad name",
        "services:\n  web:\n    image: x\n    env_file: bad.env\n",
        [
            "bad.env:2:1: unexpected '?' in the name 'B?=2'",
        ],
    ),
    (
        "label file that is not there",
        "services:\n  web:\n    image: x\n    label_file: labels\n",
        [
            "compose.yaml:4:17: services.web.label_file[0]: there is no file labels",
        ],
    ),
    (
        "variable with a space behind its name",
        "services:\n  web:\n    image: x\n    environment: ['A =b']\n",
        [
            "compose.yaml:4:18: services.web.environment: variable 'A ' ends with a space",
        ],
    ),
    (
        "mode that is not octal",
        "services:\n"
        "  web:\n"
        "    image: x\n"
        "    secrets: [{source: s, mode: '9'}]\n"
        "secrets: {s: {file: a}}\n",
        [
            "compose.yaml:4:33: services.web.secrets[0].mode: '9' is not a mode in octal digits",
        ],
    ),
]
