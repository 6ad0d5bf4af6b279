"""How do tests get an image registry of their own?"""

import ctypes
import http.client
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tests.lab.errors import LabError, LabUnavailable
from tests.lab.ports import free_port
from tests.lab.process import MACHINE, Process, program_path, run, spawn
from tests.lab.wait import wait_for

if TYPE_CHECKING:
    import docker

    from tests.lab.lab import Lab

LAB_PORT = 5000
START_DEADLINE_S = 20.0
LOG_TAIL_BYTES = 2000
_BCRYPT_DIGITS = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def bcrypt_hash(password: str) -> str:
    """Return the bcrypt hash of a password, the only kind that the registry takes.

    Raises:
        LabUnavailable: The system's libcrypt cannot make one.
    """
    try:
        crypt = ctypes.CDLL("libcrypt.so.1").crypt
    except OSError as err:
        raise LabUnavailable("libcrypt.so.1 is missing: install the package libcrypt1") from err
    crypt.restype = ctypes.c_char_p
    # 22 digits of salt; the last carries two bits only, and "." has the others clear.
    salt = "".join(secrets.choice(_BCRYPT_DIGITS) for _ in range(21)) + "."
    hashed = crypt(password.encode(), f"$2b$05${salt}".encode())
    if not hashed or not hashed.startswith(b"$2b$"):
        raise LabUnavailable("the system's libcrypt has no bcrypt")
    return str(hashed.decode())


class Registry:
    """An image registry: on a lab's switch, where all hosts reach and trust it, or on loopback."""

    def __init__(
        self,
        directory: Path,
        *,
        lab: "Lab | None" = None,
        credentials: tuple[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        """Describe a registry; `start` starts it.

        Args:
            directory: Where its images, settings and log go.
            lab: The lab on whose switch it listens; None is the loopback address of this machine.
            credentials: User and password that every client must give; None lets everyone in.
            port: The port; LAB_PORT on a switch and a free one on loopback if None.
        """
        self.directory = directory
        self.lab = lab
        self.credentials = credentials
        self._process: Process | None = None
        if lab is None:
            self.address = f"127.0.0.1:{port or free_port()}"
        else:
            self.address = f"{lab.switch_address}:{port or LAB_PORT}"

    def reference(self, image: str) -> str:
        """Return an image's name in this registry: `busybox:1` is `10.77.0.1:5000/busybox:1`."""
        return f"{self.address}/{image}"

    @property
    def auth_config(self) -> dict[str, str]:
        """The credentials as the docker SDK takes them (empty without)."""
        if self.credentials is None:
            return {}
        return {"username": self.credentials[0], "password": self.credentials[1]}

    def start(self) -> "Registry":
        """Start it and wait until it answers.

        Raises:
            LabUnavailable: The machine has no registry program.
            LabError: It does not answer in time; the message ends with its log.
        """
        if shutil.which("docker-registry", path=program_path()) is None:
            raise LabUnavailable("docker-registry is missing: install the package docker-registry")
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "config.yml"
        config.write_text(self._config())
        place = MACHINE if self.lab is None else self.lab.switch_place()
        log_path = self.directory / "registry.log"
        with open(log_path, "ab") as log:
            self._process = spawn(
                ["docker-registry", "serve", str(config)], place, stdout=log, stderr=log, cwd="/"
            )
        try:
            wait_for(
                self._answers, f"the registry {self.address} answers", deadline_s=START_DEADLINE_S
            )
        except LabError as err:
            self.stop()
            raise LabError(f"{err}:\n{log_path.read_text()[-LOG_TAIL_BYTES:]}") from err
        return self

    def _config(self) -> str:
        lines = [
            "version: 0.1",
            "log: {level: warn, accesslog: {disabled: true}}",
            f"storage: {{filesystem: {{rootdirectory: {self.directory / 'images'}}}}}",
            f"http: {{addr: '{self.address}', secret: {secrets.token_hex(16)}}}",
        ]
        if self.credentials is not None:
            user, password = self.credentials
            path = self.directory / "htpasswd"
            path.write_text(f"{user}:{bcrypt_hash(password)}\n")
            lines.append(f"auth: {{htpasswd: {{realm: dray-test, path: {path}}}}}")
        return "\n".join(lines) + "\n"

    def _answers(self) -> bool:
        """Ask it, from where it listens; "who are you?" is an answer too."""
        if self._process is None or not self._process.is_running:
            return False
        if self.lab is not None:
            listening = run(["ss", "-ltnH"], self.lab.switch_place()).stdout
            return f"{self.address} " in listening
        connection = http.client.HTTPConnection(self.address, timeout=2)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status in (http.client.OK, http.client.UNAUTHORIZED)
        except OSError:
            return False
        finally:
            connection.close()

    def push(self, client: "docker.DockerClient", image: str, name: str | None = None) -> str:
        """Push an image that an engine has, by default under its own name; return its reference.

        Raises:
            LabError: The registry or the engine refuses.
        """
        reference = self.reference(name or image)
        client.images.get(image).tag(reference)
        for event in client.images.push(
            reference, stream=True, decode=True, auth_config=self.auth_config
        ):
            if "error" in event:
                raise LabError(f"push of {reference}: {event['error']}")
        return reference

    def pull(self, client: "docker.DockerClient", image: str) -> str:
        """Pull an image of this registry by its name here; return its image id."""
        reference = self.reference(image)
        return str(client.images.pull(reference, auth_config=self.auth_config or None).id)

    def stop(self) -> None:
        """End it; its images stay in its directory."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def __enter__(self) -> "Registry":
        """Start it."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.stop()
