"""Mistakes in the structure of a Compose file, with the exact messages."""

from __future__ import annotations

__all__ = ["MISTAKES"]

# What it is, the file, and every problem that is told.
MISTAKES: list[tuple[str, str, list[str]]] = [
    (
        "misspelt key",
        "services:\n  web:\n    imag: nginx\n",
        [
            "compose.yaml:3:5: services.web.imag: is not a known key (did you mean 'image'?)",
        ],
    ),
    (
        "misspelt section",
        "servces: {}\n",
        [
            "compose.yaml:1:1: servces: is not a known key (did you mean 'services'?)",
        ],
    ),
    (
        "key in capitals",
        "services:\n  web:\n    image: x\n    DNS: [1.1.1.1]\n",
        [
            "compose.yaml:4:5: services.web.DNS: is not a known key (did you mean 'dns'?)",
        ],
    ),
    (
        "hyphen for underscore",
        "services:\n  web:\n    image: x\n    cap-add: [ALL]\n",
        [
            "compose.yaml:4:5: services.web.cap-add: is not a known key (did you mean 'cap_add'?)",
        ],
    ),
    (
        "unknown key",
        "services:\n  web:\n    image: x\n    colour: red\n",
        [
            "compose.yaml:4:5: services.web.colour: is not a known key",
        ],
    ),
    (
        "service key at the top",
        "image: nginx\n",
        [
            "compose.yaml:1:1: image: is not a known key (it belongs into a service)",
        ],
    ),
    (
        "service at the top",
        "web: {image: nginx}\n",
        [
            "compose.yaml:1:1: web: is not a known key (a service belongs under services, an "
            "extension starts with x-)",
        ],
    ),
    (
        "deploy key in the service",
        "services:\n  web:\n    image: x\n    replicas: 2\n",
        [
            "compose.yaml:4:5: services.web.replicas: is not a known key (it belongs under deploy)",
        ],
    ),
    (
        "top key in the service",
        "services:\n  web:\n    image: x\n    include: [a]\n",
        [
            "compose.yaml:4:5: services.web.include: is not a known key (it belongs at the "
            "top of the file)",
        ],
    ),
    (
        "misspelt deploy key",
        "services:\n  web:\n    image: x\n    deploy: {replica: 2}\n",
        [
            "compose.yaml:4:14: services.web.deploy.replica: is not a known key (did you "
            "mean 'replicas'?)",
        ],
    ),
    (
        "misspelt resource key",
        "services:\n  web:\n    image: x\n    deploy: {resources: {limit: {}}}\n",
        [
            "compose.yaml:4:26: services.web.deploy.resources.limit: is not a known key (did "
            "you mean 'limits'?)",
        ],
    ),
    (
        "misspelt healthcheck key",
        "services:\n  web:\n    image: x\n    healthcheck: {intervall: 3s}\n",
        [
            "compose.yaml:4:19: services.web.healthcheck.intervall: is not a known key (did "
            "you mean 'interval'?)",
        ],
    ),
    (
        "misspelt port key",
        "services:\n  web:\n    image: x\n    ports: [{targt: 80}]\n",
        [
            "compose.yaml:4:14: services.web.ports[0].targt: is not a known key (did you "
            "mean 'target'?)",
        ],
    ),
    (
        "misspelt volume key",
        "services:\n  web:\n    image: x\n    volumes: [{type: bind, src: /a, target: /b}]\n",
        [
            "compose.yaml:4:28: services.web.volumes[0].src: is not a known key",
        ],
    ),
    (
        "misspelt network key",
        "services: {a: {image: x}}\nnetworks: {n: {drver: bridge}}\n",
        [
            "compose.yaml:2:16: networks.n.drver: is not a known key (did you mean 'driver'?)",
        ],
    ),
    (
        "misspelt dependency key",
        "services:\n  web:\n    image: x\n    depends_on: {db: {conditions: service_healthy}}\n",
        [
            "compose.yaml:4:22: services.web.depends_on.db: lacks the key 'condition'",
            "compose.yaml:4:23: services.web.depends_on.db.conditions: is not a known key "
            "(did you mean 'condition'?)",
        ],
    ),
    (
        "misspelt condition",
        "services:\n  web:\n    image: x\n    depends_on: {db: {condition: service_healty}}\n",
        [
            "compose.yaml:4:34: services.web.depends_on.db.condition: must be "
            "service_started, service_healthy or service_completed_successfully, not the "
            "text 'service_healty' (did you mean 'service_healthy'?)",
        ],
    ),
    (
        "unknown order",
        "services:\n  web:\n    image: x\n    deploy: {update_config: {order: start_first}}\n",
        [
            "compose.yaml:4:37: services.web.deploy.update_config.order: must be start-first "
            "or stop-first, not the text 'start_first' (did you mean 'start-first'?)",
        ],
    ),
    (
        "unknown mount type",
        "services:\n  web:\n    image: x\n    volumes: [{type: binds, target: /b}]\n",
        [
            "compose.yaml:4:22: services.web.volumes[0].type: must be bind, volume, tmpfs, "
            "cluster, npipe or image, not the text 'binds' (did you mean 'bind'?)",
        ],
    ),
    (
        "unknown cgroup",
        "services:\n  web:\n    image: x\n    cgroup: hosts\n",
        [
            "compose.yaml:4:13: services.web.cgroup: must be host or private, not the text "
            "'hosts' (did you mean 'host'?)",
        ],
    ),
    (
        "unknown pull policy",
        "services:\n  web:\n    image: x\n    pull_policy: sometimes\n",
        [
            "compose.yaml:4:18: services.web.pull_policy: 'sometimes' is not a proper pull_policy",
        ],
    ),
    (
        "container name of one letter",
        "services:\n  web:\n    image: x\n    container_name: x\n",
        [
            "compose.yaml:4:21: services.web.container_name: 'x' is not a proper container_name",
        ],
    ),
    (
        "image is a number",
        "services:\n  web:\n    image: 5\n",
        [
            "compose.yaml:3:12: services.web.image: must be text, not the number 5",
        ],
    ),
    (
        "image is a list",
        "services:\n  web:\n    image: [a]\n",
        [
            "compose.yaml:3:12: services.web.image: must be text, not a list",
        ],
    ),
    (
        "image is nothing",
        "services:\n  web:\n    image:\n",
        [
            "compose.yaml:3:11: services.web.image: must be text, not nothing",
        ],
    ),
    (
        "environment is text",
        "services:\n  web:\n    image: x\n    environment: A=b\n",
        [
            "compose.yaml:4:18: services.web.environment: must be a mapping or a list, not "
            "the text 'A=b'",
        ],
    ),
    (
        "environment holds a list",
        "services:\n  web:\n    image: x\n    environment: {A: [1]}\n",
        [
            "compose.yaml:4:22: services.web.environment.A: must be text, a number, true or "
            "false or nothing, not a list",
        ],
    ),
    (
        "environment item is a mapping",
        "services:\n  web:\n    image: x\n    environment:\n      - A: b\n",
        [
            "compose.yaml:5:9: services.web.environment[0]: must be text, not a mapping",
        ],
    ),
    (
        "ports is text",
        "services:\n  web:\n    image: x\n    ports: 80:80\n",
        [
            "compose.yaml:4:12: services.web.ports: must be a list, not the text '80:80'",
        ],
    ),
    (
        "ports is a mapping",
        "services:\n  web:\n    image: x\n    ports: {80: 80}\n",
        [
            "compose.yaml:4:13: key '80' is not text (write it as \"80\")",
        ],
    ),
    (
        "command is a mapping",
        "services:\n  web:\n    image: x\n    command: {a: b}\n",
        [
            "compose.yaml:4:14: services.web.command: must be a list, nothing or text, not a "
            "mapping",
        ],
    ),
    (
        "command item is a number",
        "services:\n  web:\n    image: x\n    command: [sleep, 5]\n",
        [
            "compose.yaml:4:22: services.web.command[1]: must be text, not the number 5",
        ],
    ),
    (
        "service is a list",
        "services: {web: [a]}\n",
        [
            "compose.yaml:1:17: services.web: must be a mapping, not a list",
        ],
    ),
    (
        "service is nothing",
        "services: {web: }\n",
        [
            "compose.yaml:1:17: services.web: must be a mapping, not nothing",
        ],
    ),
    (
        "services is a list",
        "services: [web]\n",
        [
            "compose.yaml:1:11: services: must be a mapping, not a list",
        ],
    ),
    (
        "volumes is a list",
        "services: {a: {image: x}}\nvolumes: [data]\n",
        [
            "compose.yaml:2:10: volumes: must be a mapping, not a list",
        ],
    ),
    (
        "replicas is a word",
        "services:\n  web:\n    image: x\n    deploy: {replicas: many}\n",
        [
            "compose.yaml:4:24: services.web.deploy.replicas: 'many' is not a whole number",
        ],
    ),
    (
        "replicas is a fraction",
        "services:\n  web:\n    image: x\n    deploy: {replicas: 1.5}\n",
        [
            "compose.yaml:4:24: services.web.deploy.replicas: must be a whole number, not "
            "the number 1.5",
        ],
    ),
    (
        "privileged is a word",
        "services:\n  web:\n    image: x\n    privileged: maybe\n",
        [
            "compose.yaml:4:17: services.web.privileged: 'maybe' is not true or false",
        ],
    ),
    (
        "privileged is a number",
        "services:\n  web:\n    image: x\n    privileged: 1\n",
        [
            "compose.yaml:4:17: services.web.privileged: must be true or false, not the number 1",
        ],
    ),
    (
        "retries is negative",
        "services:\n  web:\n    image: x\n    healthcheck: {test: a, retries: -1}\n",
        [
            "compose.yaml:4:37: services.web.healthcheck.retries: must be 0 or more, not -1",
        ],
    ),
    (
        "percent above 100",
        "services:\n  web:\n    image: x\n    cpu_percent: 120\n",
        [
            "compose.yaml:4:18: services.web.cpu_percent: must be 100 or less, not 120",
        ],
    ),
    (
        "score below -1000",
        "services:\n  web:\n    image: x\n    oom_score_adj: -2000\n",
        [
            "compose.yaml:4:20: services.web.oom_score_adj: must be -1000 or more, not -2000",
        ],
    ),
    (
        "memory is no size",
        "services:\n  web:\n    image: x\n    mem_limit: lots\n",
        [
            "compose.yaml:4:16: services.web.mem_limit: 'lots' is not a size (write it as "
            "512m, 1.5g or 1024)",
        ],
    ),
    (
        "memory of a limit is a number",
        "services:\n  web:\n    image: x\n    deploy: {resources: {limits: {memory: 5}}}\n",
        [
            "compose.yaml:4:43: services.web.deploy.resources.limits.memory: must be text, "
            "not the number 5",
        ],
    ),
    (
        "duration without a unit",
        "services:\n  web:\n    image: x\n    stop_grace_period: '10'\n",
        [
            "compose.yaml:4:24: services.web.stop_grace_period: '10' is not a duration "
            "(write it as 30s, 1m30s or 500ms)",
        ],
    ),
    (
        "duration is a number",
        "services:\n  web:\n    image: x\n    stop_grace_period: 10\n",
        [
            "compose.yaml:4:24: services.web.stop_grace_period: must be text, not the number 10",
        ],
    ),
    (
        "cpus is no number",
        "services:\n  web:\n    image: x\n    cpus: two\n",
        [
            "compose.yaml:4:11: services.web.cpus: 'two' is not a number",
        ],
    ),
    (
        "ulimit without hard",
        "services:\n  web:\n    image: x\n    ulimits: {nofile: {soft: 5}}\n",
        [
            "compose.yaml:4:23: services.web.ulimits.nofile: lacks the key 'hard'",
        ],
    ),
    (
        "device without capabilities",
        "services:\n"
        "  web:\n"
        "    image: x\n"
        "    deploy: {resources: {reservations: {devices: [{count: 1}]}}}\n",
        [
            "compose.yaml:4:51: services.web.deploy.resources.reservations.devices[0]: lacks "
            "the key 'capabilities'",
        ],
    ),
    (
        "device with count and ids",
        "services:\n  web:\n    image: x\n    gpus: [{count: 1, device_ids: ['0']}]\n",
        [
            "compose.yaml:4:23: services.web.gpus[0]: has both count and device_ids (name "
            "only one)",
        ],
    ),
    (
        "duplicate key",
        "services:\n  web:\n    image: x\n    image: y\n",
        [
            "compose.yaml:4:5: key 'image' is there twice, first in line 3",
        ],
    ),
    (
        "duplicate service",
        "services:\n  a: {image: x}\n  a: {image: y}\n",
        [
            "compose.yaml:3:3: key 'a' is there twice, first in line 2",
        ],
    ),
    (
        "number as a key",
        "services:\n  1: {image: x}\n",
        [
            "compose.yaml:2:3: key '1' is not text (write it as \"1\")",
        ],
    ),
    (
        "service name with a space",
        "services:\n  my web: {image: x}\n",
        [
            "compose.yaml:2:3: services.my web: 'my web' is not a proper name (a name may "
            "hold letters, digits and . _ -)",
        ],
    ),
    (
        "duplicate in a list",
        "services:\n  web:\n    image: x\n    security_opt: [a, a]\n",
        [
            "compose.yaml:4:23: services.web.security_opt[1]: is in the list twice",
        ],
    ),
    (
        "tab as indentation",
        "services:\n\ta: {image: x}\n",
        [
            "compose.yaml:2:1: is not YAML: found character that cannot start any token "
            "while scanning for the next token",
        ],
    ),
    (
        "bracket left open",
        "services: {a: {image: x}\n",
        [
            "compose.yaml:1:11: is not YAML: did not find expected ',' or '}' while parsing "
            "a flow mapping",
        ],
    ),
    (
        "quote left open",
        "services: {a: {image: 'x}}\n",
        [
            "compose.yaml:1:23: is not YAML: found unexpected end of stream while scanning a "
            "quoted scalar",
        ],
    ),
    (
        "unknown anchor",
        "services: {a: *b}\n",
        [
            "compose.yaml:1:15: alias *b refers to an anchor that is not there",
        ],
    ),
    (
        "merge of a text",
        "services:\n  a:\n    <<: text\n    image: x\n",
        [
            "compose.yaml:3:9: << can merge a mapping or a list of mappings only",
        ],
    ),
]
