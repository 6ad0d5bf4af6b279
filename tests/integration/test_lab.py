"""Is the lab a fair stand-in for several machines, and does it go without a trace?"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import BUSYBOX, WEB, Host, Lab, LabError, Process, wait_for
from tests.lab.audit import Traces, namespaces_of
from tests.lab.fixtures import LabFactory
from tests.lab.state import State, process_start

# Far above what it takes (about 3 s and 0.5 s on two cores): a test is no benchmark.
FIVE_UP_LIMIT_S = 30.0
FIVE_DOWN_LIMIT_S = 15.0

# Says `ready`, answers each line with `line`, and tells how the connection ended.
SERVER = """
import socket, sys
server = socket.create_server(("0.0.0.0", 7000))
print("ready", flush=True)
connection = server.accept()[0]
try:
    while data := connection.recv(100):
        connection.sendall(data)
    print("closed", flush=True)
except OSError as err:
    print(type(err).__name__, flush=True)
"""
# Connects, sends one line, prints the answer; then says what else the connection does in 2 s.
CLIENT = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 7000), timeout=5)
connection.sendall(b"hello")
print(connection.recv(100).decode(), flush=True)
sys.stdin.readline()
connection.settimeout(2)
try:
    print("got", connection.recv(100), flush=True)
except OSError as err:
    print(type(err).__name__, flush=True)
"""
# Prints every datagram that arrives, with its sender.
LISTENER = """
import socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("0.0.0.0", 4789))
print("ready", flush=True)
while True:
    data, sender = receiver.recvfrom(100)
    print(sender[0], data.decode(), flush=True)
"""
SENDER = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for address in sys.argv[2:]:
    sender.sendto(sys.argv[1].encode(), (address, 4789))
"""


def python(host: Host, code: str, *arguments: str) -> Process:
    """Start a Python program on a host with pipes."""
    pipe = subprocess.PIPE
    return host.popen([sys.executable, "-c", code, *arguments], stdin=pipe, stdout=pipe)


def line_of(process: Process) -> str:
    """Return the next line that a program prints."""
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def close(process: Process) -> None:
    """End a program and close its pipes."""
    process.kill()
    process.communicate()


def reaches(source: Host, target: Host) -> bool:
    """Return whether an echo request of one host is answered by another within a second."""
    command = ["busybox", "ping", "-c1", "-W1", target.address]
    return source.exec(command, check=False).returncode == 0


def test_five_hosts_come_up_quickly_and_go_without_a_trace(lab_factory: LabFactory) -> None:
    """Five hosts with engines come up in seconds, and nothing of them is left when they go."""
    own_namespaces = namespaces_of(os.getpid())
    begin = time.monotonic()
    lab = lab_factory(5)
    up_s = time.monotonic() - begin
    traces = lab.traces()
    assert len(traces.processes) >= 5 * 4  # keeper, init, dockerd, containerd
    assert len(traces.namespaces) >= 5 * 6 + 1
    assert len({host.docker.info()["ID"] for host in lab.hosts}) == 5

    begin = time.monotonic()
    lab.down()
    down_s = time.monotonic() - begin

    print(f"5 hosts: up {up_s:.2f} s, down {down_s:.2f} s")
    assert traces.remaining() == []
    assert not lab.directory.exists()
    assert namespaces_of(os.getpid()) == own_namespaces
    assert up_s < FIVE_UP_LIMIT_S
    assert down_s < FIVE_DOWN_LIMIT_S


def test_the_audit_sees_what_a_lab_is_made_of(lab: Lab) -> None:
    """The check that nothing is left finds each kind of thing while the lab is there."""
    found = {words.split()[0] for words in lab.traces().remaining()}
    assert found == {"cgroup", "directory", "process", "namespace", "mount"}


def test_a_host_is_a_machine_of_its_own(lab: Lab) -> None:
    """Name, processes, files, cgroups, identity and engine settings are the host's own."""
    first, second = lab.host(1), lab.host(2)
    assert first.exec(["hostname"]).stdout == "host1\n"
    assert first.exec(["cat", "/proc/1/comm"]).stdout.startswith("python")
    assert first.exec(["cat", "/proc/self/cgroup"]).stdout.strip().endswith(":/user")
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        assert first.exec(["cat", path]).stdout != second.exec(["cat", path]).stdout
    for directory in ("/etc", "/var/lib", "/var/log", "/run"):
        first.exec(["sh", "-c", f"echo mine > {directory}/lab-test"])
        assert second.exec(["cat", f"{directory}/lab-test"], check=False).returncode == 1
        assert not Path(directory, "lab-test").exists()
        assert first.outside_path(f"{directory}/lab-test").read_text() == "mine\n"
    info = first.docker.info()
    assert info["LiveRestoreEnabled"]
    assert info["Driver"] == "overlay2"
    assert lab.subnet in info["RegistryConfig"]["InsecureRegistryCIDRs"]
    assert "-P FORWARD DROP" in first.exec(["iptables", "-S", "FORWARD"]).stdout


def test_programs_have_their_real_pid_and_get_signals(host: Host) -> None:
    """A program on a host can be stopped and killed by its pid, and its exit code comes back."""
    process = host.popen(["sleep", "1000"])
    assert Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n"
    assert process.pid in host.lab.cgroups.processes(host.name, "user")
    process.pause()
    wait_for(lambda: "T (stopped)" in Path(f"/proc/{process.pid}/status").read_text(), "it stops")
    process.resume()
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    failing = host.exec(["sh", "-c", "echo out; echo err >&2; exit 7"], check=False)
    assert (failing.returncode, failing.stdout, failing.stderr) == (7, "out\n", "err\n")
    with pytest.raises(LabError, match="no-such-program"):
        host.exec(["no-such-program"])
    with pytest.raises(LabError, match="did not end in"):
        host.exec(["sleep", "1000"], timeout_s=0.2)


def test_hosts_reach_one_another_and_the_switch_reaches_them(lab: Lab) -> None:
    """Every host reaches every other one, and an outside client a published port."""
    for source in lab.hosts:
        for target in lab.hosts:
            assert reaches(source, target)
    web = lab.host(2).docker.containers.run(WEB.reference, detach=True, ports={"80/tcp": 8080})
    try:
        url = f"http://{lab.host(2).address}:8080/cgi-bin/who"
        fetch = ["busybox", "wget", "-qO-", url]
        answer = wait_for(lambda: lab.switch_exec(fetch, check=False).stdout, "the web answers")
        assert answer.split() == [web.short_id, lab.switch_address]
        begin = time.monotonic()
        web.stop(timeout=30)
        assert time.monotonic() - begin < 10  # its PID 1 heeds SIGTERM
    finally:
        web.remove(force=True)


def test_cuts_one_way_both_ways_and_from_one_peer(lab: Lab) -> None:
    """A cut stops datagrams to a tunnel's port, in the given directions only, until healed."""
    hosts = lab.hosts
    listeners = [python(host, LISTENER) for host in hosts]

    def heard(word: str, sender: Host) -> list[int]:
        """Send to all others, then a mark over the way that is known to be open; who heard?"""
        others = [host for host in hosts if host is not sender]
        targets = [host.address for host in others]
        sender.exec([sys.executable, "-c", SENDER, word, *targets])
        found = []
        for host in others:
            # Frames of one sender stay in order, so what has not come before the mark never will.
            lab.switch_exec([sys.executable, "-c", SENDER, f"mark-{word}", host.address])
            listener = listeners[host.index - 1]
            while not (line := line_of(listener)).endswith(f"mark-{word}"):
                if line == f"{sender.address} {word}":
                    found.append(host.index)
        return found

    try:
        assert [line_of(listener) for listener in listeners] == ["ready"] * 3
        assert heard("before", hosts[0]) == [2, 3]
        hosts[0].cut("out", [hosts[1]])
        assert heard("out-to-2", hosts[0]) == [3]
        assert heard("back", hosts[1]) == [1, 3]
        hosts[0].heal()
        hosts[0].cut("in", [hosts[1], hosts[2]])
        assert heard("in-from-all", hosts[0]) == [2, 3]
        assert heard("deaf", hosts[1]) == [3]
        hosts[0].heal()
        hosts[0].cut("out")
        assert heard("mute", hosts[0]) == []
        assert heard("hears", hosts[2]) == [1, 2]
        hosts[0].heal()
        hosts[1].cut(peers=[hosts[2]])
        assert heard("pair", hosts[1]) == [1]
        assert heard("pair-back", hosts[2]) == [1]
        hosts[1].heal()
        assert heard("after", hosts[1]) == [1, 3]
    finally:
        for listener in listeners:
            close(listener)


def test_a_host_cut_both_ways_reaches_nobody_until_it_is_healed(lab: Lab) -> None:
    """Cut both ways, a host is silent for all; its engine still answers through its socket."""
    lab.host(1).cut()
    assert not reaches(lab.host(1), lab.host(2))
    assert not reaches(lab.host(2), lab.host(1))
    assert reaches(lab.host(2), lab.host(3))
    assert lab.host(1).docker.ping()
    lab.host(1).heal()
    assert reaches(lab.host(1), lab.host(2))


def test_a_flapping_link_comes_back(lab: Lab) -> None:
    """A host whose carrier was gone for a moment keeps its address and is reached again."""
    lab.host(1).link_flap()
    assert wait_for(lambda: reaches(lab.host(2), lab.host(1)), "host 1 is reached again")


def test_power_loss_is_silent_and_the_disk_survives(lab: Lab) -> None:
    """The peer of a host that loses power hears nothing, and the rebooted host has its disk."""
    lost, peer = lab.host(1), lab.host(2)
    container = lost.docker.containers.run(
        BUSYBOX.reference, ["sh", "-c", "echo kept > /data; sleep 1000"], detach=True, name="store"
    )
    wait_for(lambda: lost.docker.containers.get("store").exec_run("cat /data")[0] == 0, "it writes")
    lost.exec(["sh", "-c", "echo etc > /etc/kept; echo gone > /run/lost"])
    boot_id = lost.exec(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    server = python(lost, SERVER)
    assert line_of(server) == "ready"
    client = python(peer, CLIENT, lost.address)
    assert line_of(client) == "hello"

    lost.power_off()
    assert client.stdin is not None
    client.stdin.write(b"go on\n")
    client.stdin.flush()
    assert line_of(client) == "TimeoutError"  # neither closed (FIN) nor reset (RST)
    assert server.wait(10) == -signal.SIGKILL
    assert not lost.is_on()
    with pytest.raises(LabError, match="is off"):
        lost.exec(["true"])
    close(client)
    close(server)

    lost.boot()
    assert lost.exec(["cat", "/etc/kept"]).stdout == "etc\n"
    assert lost.exec(["cat", "/run/lost"], check=False).returncode == 1
    assert lost.exec(["cat", "/proc/sys/kernel/random/boot_id"]).stdout != boot_id
    assert reaches(peer, lost)
    again = lost.docker.containers.get("store")
    assert again.id == container.id
    assert again.status == "exited"
    again.start()
    assert again.exec_run("cat /data").output == b"kept\n"
    again.remove(force=True)


def test_a_paused_container_does_not_hinder_power_loss(lab: Lab) -> None:
    """A host with a frozen container can be powered off."""
    lost = lab.host(1)
    container = lost.docker.containers.run(
        BUSYBOX.reference, ["sleep", "1000"], detach=True, name="frozen"
    )
    container.pause()
    lost.power_off()
    assert lab.cgroups.processes(lost.name) == set()
    lost.boot()
    lost.docker.containers.get("frozen").remove(force=True)


def test_containers_outlive_their_engine(host: Host) -> None:
    """A killed, and a stopped, dockerd leaves containers running; the next one has them again."""
    container = host.docker.containers.run(BUSYBOX.reference, ["sleep", "1000"], detach=True)
    container.reload()
    inner_pid = container.attrs["State"]["Pid"]
    for end_engine in (host.kill_engine, host.stop_engine):
        before = host.engine_pid()
        end_engine()
        assert host.engine_pid() is None
        assert host.exec(["cat", f"/proc/{inner_pid}/comm"]).stdout == "sleep\n"
        host.start_engine()
        assert host.engine_pid() not in (None, before)
        container.reload()
        assert container.status == "running"
        assert container.attrs["State"]["Pid"] == inner_pid
    container.remove(force=True)


def test_an_engine_that_does_not_start_says_why_and_leaves_nothing() -> None:
    """A setting that dockerd refuses fails `up` with dockerd's own words, and the lab goes."""
    before = {lab.id for lab in Lab.live()}
    with pytest.raises(LabError, match="no-such-setting"):
        Lab.up(1, engine={"no-such-setting": True})
    assert {lab.id for lab in Lab.live()} <= before


def test_a_lab_whose_owner_is_killed_is_swept_away() -> None:
    """The next `up` removes a lab whose process was killed, and leaves other labs alone."""
    code = (
        "import sys; from tests.lab import Lab\n"
        "lab = Lab.up(1); print(lab.id, flush=True); sys.stdin.read()"
    )
    with Lab.up(1) as bystander:
        owner = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert owner.stdout is not None
        orphan = Lab.attach(owner.stdout.readline().strip())
        assert orphan.subnet != bystander.subnet
        traces = orphan.traces()
        assert {lab.id for lab in Lab.live()} >= {orphan.id, bystander.id}
        owner.kill()
        owner.communicate()
        assert orphan.host(1).is_on()
        assert orphan.id not in {lab.id for lab in Lab.live()}
        with Lab.up(1):
            assert traces.remaining() == []
            assert bystander.host(1).docker.ping()


def test_programs_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    """A program started by a thread outlives the thread, and is killed with its process."""
    code = (
        "import threading\n"
        "from tests.lab import spawn\n"
        "started = []\n"
        "thread = threading.Thread(target=lambda: started.append(spawn(['sleep', '1000'])))\n"
        "thread.start(); thread.join()\n"
        "print(started[0].pid, flush=True); input()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert process_start(pid) is not None
    owner.kill()
    owner.communicate()
    wait_for(lambda: process_start(pid) is None, "the program has ended")
    assert list(tmp_path.iterdir()) == []


def test_the_command_keeps_a_lab_between_calls(tmp_path: Path) -> None:
    """`lab up`, `exec`, `cut`, `power-off`, `boot`, `status` and `down` work on one kept lab."""

    def lab_command(*words: str, code: int = 0) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "tests.lab", *words],
            capture_output=True,
            text=True,
            check=False,
            # A state directory of its own: whoever has a lab up by hand keeps it.
            env={**os.environ, "DRAY_LAB_DIR": str(root)},
        )
        assert result.returncode == code, result
        return result.stdout + result.stderr

    root = Path("/var/tmp") / f"dray-lab-{os.getpid()}"  # noqa: S108 - short: sockets lie below it
    try:
        assert "2 hosts" in lab_command("up", "2")
        record = State(root).records()[0]
        assert record.owner is None
        traces = Traces.of(record.number, root / record.id, Lab.attach(record.id, root).cgroups)
        assert lab_command("exec", "1", "hostname") == "host1\n"
        lab_command("exec", "1", "sh", "-c", "exit 3", code=3)
        assert "out: 2" in lab_command("cut", "1", "--direction", "out", "2")
        assert "cut out: 2" in lab_command("status")
        lab_command("heal", "1")
        lab_command("power-off", "2")
        assert "off" in lab_command("status").splitlines()[2]
        lab_command("boot", "2")
        assert "3 hosts" in lab_command("up", "3")
        assert "is left" in lab_command("down")
        assert traces.remaining() == []
        assert lab_command("status") == "no lab is up\n"
        assert "no lab is up" in lab_command("exec", "1", "true", code=1)
    finally:
        for lab in Lab.live(root):
            lab.down()
    assert not root.exists()
    assert json.loads(record.to_json())["number"] == record.number
