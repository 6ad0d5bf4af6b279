"""How do people use a lab by hand? `./dev.sh lab VERB`, or `python -m tests.lab VERB`."""

import argparse
import functools
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.network import Direction
from tests.lab.process import spawn

SWITCH_INDEX = 0


def kept_lab() -> Lab:
    """Return the lab that `up` has made.

    Raises:
        LabError: There is none.
    """
    labs = [lab for lab in Lab.live() if lab.record().owner is None]
    if not labs:
        raise LabError("no lab is up: start one with `lab up 3`")
    return labs[0]


def up(arguments: argparse.Namespace) -> int:
    """Bring the lab to so many hosts, all with power."""
    begin = time.monotonic()
    try:
        lab = kept_lab()
        for host in lab.hosts:
            host.boot()
        if (missing := arguments.hosts - len(lab.hosts)) > 0:
            lab.add_hosts(missing)
    except LabError:
        if any(lab.record().owner is None for lab in Lab.live()):
            raise
        lab = Lab.up(arguments.hosts, keep=True, forward_drop=not arguments.forward_accept)
    print(f"lab {lab.id} is up: {len(lab.hosts)} hosts in {time.monotonic() - begin:.1f} s")
    for host in lab.hosts:
        print(f"  {host.name}  {host.address}  DOCKER_HOST={host.docker_url}")
    return 0


def down(_: argparse.Namespace) -> int:
    """Take down every lab made by `up`, and what crashed test runs have left."""
    for lab_id in Lab.sweep():
        print(f"lab {lab_id}, whose owner has died, is swept away")
    labs = [lab for lab in Lab.live() if lab.record().owner is None]
    for lab in labs:
        begin = time.monotonic()
        lab.down()
        seconds = time.monotonic() - begin
        print(
            f"lab {lab.id} is down in {seconds:.1f} s; checked: no process, namespace, mount, "
            "cgroup, interface or directory of it is left"
        )
    if not labs:
        print("no lab is up")
    return 0


def status(_: argparse.Namespace) -> int:
    """Show every lab and its hosts."""
    labs = Lab.live()
    if not labs:
        print("no lab is up")
    for lab in labs:
        record = lab.record()
        owner = (
            "kept until `lab down`" if record.owner is None else f"of process {record.owner.pid}"
        )
        print(f"lab {lab.id}, {lab.subnet}, {owner}")
        for host in lab.hosts:
            print(f"  {host.name:<8}{host.address:<14}{_state(host)}")
    return 0


def _state(host: Host) -> str:
    """Return one host's state in words."""
    if not host.is_on():
        return "off"
    words = [f"on, init {host.init_pid}"]
    if (engine := host.engine_pid()) is None:
        words.append("no engine")
    else:
        running = len(host.docker.containers.list())
        words.append(f"engine {engine}, {running} container{'' if running == 1 else 's'}")
    cuts = host.lab.record().cuts.of(host.index)
    return ", ".join([*words, *(f"cut {cut}" for cut in cuts)])


def exec_(arguments: argparse.Namespace) -> int:
    """Run a command on a host, on this terminal."""
    lab = kept_lab()
    if not arguments.command:
        raise LabError("exec needs a command: lab exec 1 docker ps")
    place = (
        lab.switch_place() if arguments.host == SWITCH_INDEX else lab.host(arguments.host).place()
    )
    process = spawn(arguments.command, place, stdin=sys.stdin.buffer, session=False)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the command has got it from the terminal as well
            continue


def cut(arguments: argparse.Namespace) -> int:
    """Cut a host off, from everyone or from some hosts."""
    lab = kept_lab()
    host = lab.host(arguments.host)
    peers = [lab.host(index) for index in arguments.peers] or None
    host.cut(arguments.direction, peers)
    print(f"{host.name}: cut {', '.join(lab.record().cuts.of(host.index))}")
    return 0


def heal(arguments: argparse.Namespace) -> int:
    """Undo every cut of a host."""
    host = kept_lab().host(arguments.host)
    host.heal()
    print(f"{host.name}: no cuts")
    return 0


def _timed(action: Callable[[Host], None], words: str) -> Callable[[argparse.Namespace], int]:
    """Return a verb that does something to one host and says how long it took."""

    def verb(arguments: argparse.Namespace) -> int:
        host = kept_lab().host(arguments.host)
        begin = time.monotonic()
        action(host)
        print(f"{host.name}: {words} in {time.monotonic() - begin:.2f} s")
        return 0

    return verb


def parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    top = argparse.ArgumentParser(
        prog="lab",
        description="Several hosts with Docker engines on this machine. Needs root.",
        formatter_class=functools.partial(argparse.HelpFormatter, max_help_position=20, width=98),
    )
    verbs = top.add_subparsers(metavar="VERB", required=True)

    def add(
        name: str, text: str, action: Callable[[argparse.Namespace], int], *, host: bool = True
    ) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text, description=text)
        verb.set_defaults(action=action)
        if host:
            verb.add_argument("host", type=int, metavar="HOST", help="1 for host1")
        return verb

    bring_up = add("up", "bring the lab to so many hosts", up, host=False)
    bring_up.add_argument("hosts", type=int, metavar="HOSTS")
    bring_up.add_argument(
        "--forward-accept",
        action="store_true",
        help="start hosts with the FORWARD policy ACCEPT, not DROP",
    )
    add("down", "end the lab and check that nothing is left", down, host=False)
    add("status", "show labs, hosts, engines and cuts", status, host=False)
    run = add("exec", "run a command on a host (0: on the switch, as an outside client)", exec_)
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    cutting = add("cut", "cut a host off from everyone, or from some hosts", cut)
    cutting.add_argument("peers", type=int, nargs="*", metavar="PEER", help="other hosts")
    cutting.add_argument(
        "--direction",
        choices=[direction.value for direction in Direction],
        default="both",
        help="out: it is not heard; in: it does not hear",
    )
    add("heal", "undo every cut of a host", heal)
    add("power-off", "cut a host's power: no goodbye to anyone", _timed(Host.power_off, "off"))
    add("boot", "power a host on again, its disk kept", _timed(Host.boot, "on"))
    add("flap", "take a host's carrier away and give it back", _timed(Host.link_flap, "flapped"))
    add("kill-engine", "kill a host's dockerd", _timed(Host.kill_engine, "engine killed"))
    add("start-engine", "start a host's dockerd", _timed(Host.start_engine, "engine answers"))
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    if rest and arguments.action is cut and all(word.isdigit() for word in rest):
        # argparse takes no peers behind the option, as in `cut 1 --direction out 2`.
        arguments.peers += map(int, rest)
    elif rest:
        top.error(f"unrecognized arguments: {shlex.join(rest)}")
    try:
        code: int = arguments.action(arguments)
    except LabError as err:
        print(f"lab: {err}", file=sys.stderr)
        return 1
    except subprocess.SubprocessError as err:
        print(f"lab: {shlex.join(map(str, sys.argv[1:]))}: {err}", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
