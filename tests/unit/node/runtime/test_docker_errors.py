"""Is each of the engine's sentences understood, as real engines say them?"""

from __future__ import annotations

import pytest

from node.runtime.base import Refusal
from node.runtime.docker_errors import MESSAGE_LENGTH_MAX, refused, refused_pull

OCI = "failed to create shim task: OCI runtime create failed: runc create failed: "
START = OCI + "unable to start container process: "
OURS = "0123456789abcdef"

# Sentences of Docker 20.10.24 with runc 1.1.5 unless another version is named.
SAID = (
    (400, START + 'exec: "/nope": stat /nope: no such file or directory: unknown',
     Refusal.COMMAND_NOT_FOUND, False),
    (400, START + 'exec: "nope": executable file not found in $PATH: unknown',
     Refusal.COMMAND_NOT_FOUND, False),
    (400, START + 'exec: "/etc/passwd": permission denied: unknown',
     Refusal.COMMAND_NOT_EXECUTABLE, False),
    (400, START + 'exec: "/etc": is a directory: unknown',  # runc 1.2
     Refusal.COMMAND_NOT_EXECUTABLE, False),
    (400, "exec /bin/app: exec format error: unknown", Refusal.COMMAND_NOT_EXECUTABLE, False),
    (409, 'Conflict. The container name "/a" is already in use by container "b". You have to '
     "remove (or rename) that container to be able to reuse that name.",
     Refusal.NAME_TAKEN, True),
    (404, "No such image: web:1", Refusal.IMAGE_NOT_FOUND, False),
    (404, "image with reference web:1 was found but does not match the specified platform: wanted "
     "linux/arm64, actual: linux/amd64", Refusal.WRONG_PLATFORM, False),
    (400, 'invalid mount config for type "bind": bind source path does not exist: /a',
     Refusal.MOUNT_MISSING, False),
    (500, 'error gathering device information while adding custom device "/dev/a": no such file '
     "or directory", Refusal.DEVICE_MISSING, False),
    (500, 'could not select device driver "nvidia" with capabilities: [[gpu]]',
     Refusal.DEVICE_MISSING, False),
    (500, "driver failed programming external connectivity on endpoint a (b): Bind for "
     "0.0.0.0:80 failed: port is already allocated", Refusal.PORT_TAKEN, True),
    (500, "driver failed programming external connectivity on endpoint a (b): Error starting "
     "userland proxy: listen tcp4 0.0.0.0:80: bind: address already in use",
     Refusal.PORT_TAKEN, True),
    (403, "Address already in use", Refusal.ADDRESS_TAKEN, True),
    (404, "network dray not found", Refusal.NETWORK_MISSING, False),
    (404, "No such container: other", Refusal.NETWORK_MISSING, False),
    (404, f"No such container: {OURS}", Refusal.NOT_FOUND, False),
    (409, f"container {OURS} is marked for removal and cannot be started",
     Refusal.NOT_FOUND, False),
    (404, "get data: no such volume", Refusal.VOLUME_MISSING, False),
    (500, "mkdir /var/lib/docker/overlay2/a: no space left on device", Refusal.DISK_FULL, True),
    (500, "unable to find user ghost: no matching entries in passwd file", Refusal.INVALID, False),
    (500, "Decoding seccomp profile failed: invalid character '/' looking for beginning of value",
     Refusal.INVALID, False),
    (500, OCI + 'sysctl "kernel.a" is not in a separate kernel namespace: unknown',
     Refusal.INVALID, False),
    (500, OCI + "wrong rlimit value: RLIMIT_A: unknown", Refusal.INVALID, False),
    (500, "Invalid isolation: \"hyperv\" - linux only supports 'default'", Refusal.INVALID, False),
    (400, "No command specified", Refusal.INVALID, False),
    (400, "Unknown runtime specified nope", Refusal.INVALID, False),
    (500, "something that nobody has seen", Refusal.OTHER, False),
)  # fmt: skip

PULL_SAID = (
    (404, "manifest for reg:5000/web:2 not found: manifest unknown: manifest unknown",
     Refusal.IMAGE_NOT_FOUND, False),
    (404, "pull access denied for web, repository does not exist or may require 'docker login': "
     "denied: requested access to the resource is denied", Refusal.IMAGE_NOT_FOUND, False),
    (500, 'Head "http://reg:5000/v2/web/manifests/1": no basic auth credentials',
     Refusal.IMAGE_DENIED, False),
    (500, "unauthorized: authentication required", Refusal.IMAGE_DENIED, False),
    (500, 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
     Refusal.REGISTRY_UNREACHABLE, True),
    (500, 'Get "https://a.invalid/v2/": dial tcp: lookup a.invalid on 10.0.0.1:53: no such host',
     Refusal.REGISTRY_UNREACHABLE, True),
    (500, 'Get "https://reg/v2/": http: server gave HTTP response to HTTPS client',
     Refusal.REGISTRY_UNREACHABLE, True),
    (500, 'Get "https://reg/v2/": x509: certificate signed by unknown authority',
     Refusal.REGISTRY_UNREACHABLE, True),
    (500, "toomanyrequests: You have reached your pull rate limit.",
     Refusal.REGISTRY_UNREACHABLE, True),
    (0, "unexpected EOF", Refusal.REGISTRY_UNREACHABLE, True),
    (404, "no matching manifest for linux/arm64 in the manifest list entries",
     Refusal.WRONG_PLATFORM, False),
    (0, "failed to register layer: Error processing tar file(exit status 1): write /a: no space "
     "left on device", Refusal.DISK_FULL, True),
    (400, "invalid reference format: repository name must be lowercase", Refusal.INVALID, False),
    (0, "something that nobody has seen", Refusal.OTHER, False),
)  # fmt: skip


@pytest.mark.parametrize(("status", "text", "refusal", "retryable"), SAID)
def test_a_sentence_about_a_container(
    status: int, text: str, refusal: Refusal, retryable: bool
) -> None:
    """The kind of no, and whether it may pass by itself, follow from the engine's sentence."""
    found = refused(status, text, container_id=OURS)
    assert (found.refusal, found.retryable) == (refusal, retryable)


@pytest.mark.parametrize(("status", "text", "refusal", "retryable"), PULL_SAID)
def test_a_sentence_about_a_pull(status: int, text: str, refusal: Refusal, retryable: bool) -> None:
    """What registries say is told apart: not there, not allowed, not reached."""
    found = refused_pull(status, text)
    assert (found.refusal, found.retryable) == (refusal, retryable)


def test_messages_are_one_short_line() -> None:
    """People get the engine's words on one line, without runc's empty ending."""
    found = refused(500, START + "a\n  b: unknown")
    assert found.message.endswith("process: a b")
    long = refused(500, "x" * 2000)
    assert len(long.message) == MESSAGE_LENGTH_MAX
    assert long.message.endswith("…")
