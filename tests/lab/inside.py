"""How does a process get into a host, and what does a host's first process do?

This file is run as a program of its own (`python -I -S inside.py ROLE REPORT_FD SPEC_FD`), so it
imports only what starts fast and nothing of ours. It reads a JSON document from SPEC_FD. Roles:

- `host`: builds a host around itself. The *keeper* (outside) forks the *init* (PID 1 inside), which
  mounts the host's own view of the file system, then reaps orphans for ever and starts the engine
  on SIGUSR1.
- `switch`: holds a network namespace until it is killed.
- `run`: enters a host (or only the switch's network, or nothing) and runs one program there, as its
  supervisor. `nsenter -p` forks and passes no signal on; here the program's real pid is reported
  instead.

Each role reports on REPORT_FD, one line each: `pid N`, `ready`, or `error TEXT`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from tests.lab.specs import CgroupMount, HostSpec, RunSpec, SwitchSpec

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 4096, 16384, 1 << 18, 2
PR_SET_PDEATHSIG = 1
ENGINE_ENDED = "engine-ended"  # in the host's directory, written when its engine has ended
# Directories of the machine that a host sees through a layer of its own, kept on the host's disk.
LAYERED = ("/etc", "/var/lib", "/var/log")
# Directories of which a host sees nothing of the machine's. Docker's overlay2 cannot stack on a
# layer, and an engine with the machine's /etc/docker/key.json has the id of the machine's engine.
OWN_DISK = ("/etc/docker", "/var/lib/docker", "/var/lib/containerd")

_libc = ctypes.CDLL(None, use_errno=True)
_report_fd = int(sys.argv[2]) if __name__ == "__main__" else -1


def _checked(result: int, what: str) -> None:
    """Raise OSError naming `what` if a C call failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """Mount `source` on `target`."""
    arguments = (
        source.encode(),
        target.encode(),
        fstype.encode(),
        ctypes.c_ulong(flags),
        data.encode(),
    )
    _checked(_libc.mount(*arguments), f"mount {source} on {target} {fstype} {data}".rstrip())


def unshare(flags: int) -> None:
    """Give this process new namespaces."""
    _checked(_libc.unshare(flags), f"unshare {flags:#x}")


def setns(descriptor: int, what: str) -> None:
    """Enter the namespace that `descriptor` refers to."""
    _checked(_libc.setns(descriptor, 0), f"enter the {what} namespace")


def report(line: str) -> None:
    """Tell the lab one line; a lab that has gone away is no reason to fail."""
    with contextlib.suppress(OSError):
        os.write(_report_fd, line.replace("\n", " ").encode() + b"\n")


def write(path: str, text: str) -> None:
    """Write a small file (also in /proc and cgroup hierarchies)."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def join(cgroups: list[str]) -> None:
    """Move this process into one cgroup of each hierarchy."""
    for directory in cgroups:
        write(f"{directory}/cgroup.procs", "0")


def child_signals() -> None:
    """Undo what Python and this program did to signals, for the program to be run."""
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def imitate(status: int) -> NoReturn:
    """End like the child whose wait status this is: same exit code, or same signal."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        _libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE off: the child has left its core dump already
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


# --- a host ---------------------------------------------------------------------------------------


def make_mounts_private() -> None:
    """Keep our mounts off the machine, and make our root the namespace's: also in a chroot.

    In a chroot the root of a mount namespace is still the machine's. A container made there pivots
    away from the chroot only, and whoever enters its namespace later (`docker exec`) finds himself
    in the machine's root. So our root becomes the namespace's: entering one's own namespace leads
    to its root, and from there the chroot's directory is bound to itself and pivoted to.
    """
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    setns(namespace, "mount")
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    os.fchdir(root)
    path = os.getcwd()
    if path != "/":
        mount(path, path, flags=MS_BIND | MS_REC)
        os.chdir(path)
        _checked(_libc.pivot_root(b".", b"."), f"pivot_root {path}")
        _checked(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.close(namespace)
    os.close(root)
    os.chdir("/")


def mount_disk(directory: str) -> None:
    """Mount the host's own /run, its layers over the machine's directories, its engine's disk."""
    for path in LAYERED:
        layer = f"{directory}/disk{path}"
        os.makedirs(f"{layer}/upper", exist_ok=True)
        os.makedirs(f"{layer}/work", exist_ok=True)
        # The index would remember the machine's directory by file handle, and refuse after a
        # reboot.
        options = f"lowerdir={path},upperdir={layer}/upper,workdir={layer}/work,index=off"
        mount("overlay", path, "overlay", data=options)
    for path in OWN_DISK:
        os.makedirs(f"{directory}/disk{path}/data", exist_ok=True)
        os.makedirs(path, exist_ok=True)
        mount(f"{directory}/disk{path}/data", path, flags=MS_BIND)
    for name in os.listdir(f"{directory}/etc"):
        target = f"/etc/{name}"
        if os.path.islink(
            target
        ):  # systemd-resolved: a link into /run, which the host has its own of
            os.unlink(target)
        with open(f"{directory}/etc/{name}", encoding="utf-8") as file:
            write(target, file.read())
    if not os.path.exists("/etc/docker/daemon.json"):  # else it is the host's own, perhaps changed
        with open(f"{directory}/daemon.json", encoding="utf-8") as file:
            write("/etc/docker/daemon.json", file.read())
    mount(f"{directory}/run", "/run", flags=MS_BIND)


def mount_kernel_views(spec: HostSpec) -> None:
    """Mount /sys and /proc as these namespaces see them, and the host's cgroup hierarchies."""
    mount("sysfs", "/sys", "sysfs")
    hierarchies: list[CgroupMount] = spec["cgroup_mounts"]
    if [entry["point"] for entry in hierarchies] != ["/sys/fs/cgroup"]:
        mount("cgroup", "/sys/fs/cgroup", "tmpfs", data="mode=755")
    for entry in hierarchies:
        os.makedirs(entry["point"], exist_ok=True)
        mount("cgroup", entry["point"], entry["fstype"], data=entry["options"])
    for link, target in spec["cgroup_links"].items():
        os.symlink(target, link)
    mount("proc", "/proc", "proc")
    # Every boot has a boot id of its own; the kernel's would not change with a host's reboot.
    write("/run/boot_id", spec["boot_id"] + "\n")
    mount("/run/boot_id", "/proc/sys/kernel/random/boot_id", flags=MS_BIND)


def run_quietly(argv: list[str]) -> None:
    """Run a set-up command of a host and raise OSError if it fails."""
    code = os.spawnvp(os.P_WAIT, argv[0], argv)  # noqa: S606
    if code != 0:
        raise OSError(errno.EINVAL, f"{' '.join(argv)}: exit code {code}")


def start_engine(spec: HostSpec) -> int:
    """Fork the Docker engine, its output going to the engine's log; return its pid."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink("/run/docker.pid")  # of a killed engine: its number may be another process by now
    if pid := os.fork():
        return pid
    try:
        child_signals()
        os.setsid()
        log = os.open(
            f"{spec['directory']}/dockerd.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
        )
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.execvpe(spec["engine"][0], spec["engine"], {"PATH": spec["path"], "HOME": "/root"})  # noqa: S606
    except BaseException as err:  # noqa: BLE001 - a forked child must never return into its parent's code
        os.write(2, f"cannot start the engine: {err}\n".encode())
        os._exit(127)


def init(spec: HostSpec) -> NoReturn:
    """Be PID 1 of a host."""
    make_mounts_private()
    name = spec["name"].encode()
    _checked(_libc.sethostname(name, len(name)), "sethostname")
    mount_disk(spec["directory"])
    mount_kernel_views(spec)
    write("/proc/sys/net/ipv4/ip_forward", str(int(spec["ip_forward"])))
    os.chdir("/")
    os.environ["PATH"] = spec["path"]
    for command in spec["commands"]:
        run_quietly(command)
    report("ready")
    os.close(_report_fd)
    engine_pid = -1
    while True:
        if signal.sigwait({signal.SIGCHLD, signal.SIGUSR1}) == signal.SIGUSR1:
            engine_pid = start_engine(spec)
        for pid, status in reap():
            if pid == engine_pid:
                write(f"{spec['directory']}/{ENGINE_ENDED}", str(status))


def reap() -> list[tuple[int, int]]:
    """Collect every ended child and adopted orphan; return pids and wait statuses."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(child)
    return ended


def host(spec: HostSpec) -> NoReturn:
    """Make the namespaces of a host, fork its init and wait for the end of it."""
    join(spec["cgroup_roots"])
    unshare(CLONE_NEWCGROUP)  # the host's root in every hierarchy is its own subtree
    join(spec["cgroup_leaves"])  # and its processes sit below it: cgroup v2 wants leaves
    unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGUSR1})
    pid = os.fork()
    if pid == 0:
        guarded(lambda: init(spec))
    report(f"pid {pid}")
    os.close(_report_fd)
    os.waitpid(pid, 0)
    os._exit(0)


# --- the switch -----------------------------------------------------------------------------------


def switch(spec: SwitchSpec) -> NoReturn:
    """Hold a new network namespace."""
    join(spec["cgroups"])
    unshare(CLONE_NEWNET)
    for name, value in spec["sysctls"].items():
        if os.path.exists(f"/proc/sys/{name}"):
            write(f"/proc/sys/{name}", value)
    os.chdir("/")
    report(f"pid {os.getpid()}")
    report("ready")
    os.close(_report_fd)
    os.execv("/bin/sleep", ["sleep", "infinity"])  # noqa: S606


# --- running a program ----------------------------------------------------------------------------


def enter(spec: RunSpec) -> None:
    """Join the cgroups and namespaces of the target; a child forked afterwards is wholly inside."""
    join(spec["cgroups"])
    if not spec["target_pid"]:
        return
    process = f"/proc/{spec['target_pid']}"
    kinds = spec["namespaces"]
    descriptors = {kind: os.open(f"{process}/ns/{kind}", os.O_RDONLY) for kind in kinds}
    root = os.open(f"{process}/root", os.O_RDONLY | os.O_DIRECTORY)
    for kind in kinds:
        setns(descriptors[kind], kind)
    if (
        "mnt" in kinds
    ):  # the root of a mount namespace is not the target's root when it lives in a chroot
        os.fchdir(root)
        os.chroot(".")


def execute(spec: RunSpec, failure_fd: int) -> NoReturn:
    """Become the program; a failure to do so is written to `failure_fd`."""
    try:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # our supervisor has one thread only
        if spec["session"]:
            os.setsid()
        try:
            os.chdir(spec["cwd"])
        except OSError:
            os.chdir("/")
        child_signals()
        os.close(_report_fd)
        os.execvp(spec["argv"][0], spec["argv"])  # noqa: S606
    except OSError as err:
        os.write(failure_fd, f"{spec['argv'][0]}: {err.strerror}".encode())
    os._exit(127)


def end(pid: int, spec: RunSpec) -> None:
    """Kill the program, with its whole session if it leads one."""
    with contextlib.suppress(ProcessLookupError):
        if spec["session"]:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)


def run(spec: RunSpec) -> NoReturn:
    """Run a program and stay until it ends; end it when its owner dies."""
    poller = select.poll()
    owner_fd = -1
    if spec["owner_pid"]:
        owner_fd = os.pidfd_open(spec["owner_pid"])
        poller.register(owner_fd, select.POLLIN)
    enter(spec)
    failed_read, failed_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        execute(spec, failed_write)
    os.close(failed_write)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the terminal sends these to the program as well
    if failure := os.read(failed_read, 4096):
        os.waitpid(pid, 0)
        raise OSError(errno.ENOENT, failure.decode())
    poller.register(os.pidfd_open(pid), select.POLLIN)
    report(f"pid {pid}")
    report("ready")
    os.close(_report_fd)
    silence_standard_streams()
    if any(descriptor == owner_fd for descriptor, _ in poller.poll()):
        end(pid, spec)
    imitate(os.waitpid(pid, 0)[1])


def silence_standard_streams() -> None:
    """Let go of the program's pipes, so that their readers see the end when the program ends."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def guarded(action: Callable[[], NoReturn]) -> NoReturn:
    """Run a role and report its failure instead of raising."""
    try:
        action()
    except BaseException as err:  # noqa: BLE001 - the one place where a role's failure becomes a report
        if isinstance(err, OSError):
            report(f"error {err.strerror or err}")
        else:
            report(f"error {type(err).__name__}: {err}")
        os._exit(126)


def main() -> NoReturn:
    """Play the role named on the command line."""
    with open(int(sys.argv[3]), encoding="utf-8") as file:
        spec = json.load(file)
    roles: dict[str, Callable[[], NoReturn]] = {
        "host": lambda: host(spec),
        "switch": lambda: switch(spec),
        "run": lambda: run(spec),
    }
    guarded(roles[sys.argv[1]])


if __name__ == "__main__":
    main()
