"""Look at nodes and change them, or run the node daemon on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from cli.arguments import add_format
from cli.context import Context
from cli.exits import ExitCode

if TYPE_CHECKING:
    from dray.client import Client
    from dray.model import Availability

__all__ = ["add_arguments", "run"]

_DAEMON: Final = {
    "run": "run the node daemon; see `dray node run --help`",
    "config": "show the daemon's settings as they come out",
    "doctor": "say what is wrong with this machine's network, and what repairs it",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their arguments."""
    actions: Any = parser.add_subparsers(
        title="actions", metavar="ACTION", dest="action", required=True
    )
    listing = actions.add_parser("ls", help="list nodes")
    add_format(listing)
    members = actions.add_parser("members", help="show what one node's gossip holds of all members")
    members.add_argument("node", metavar="NODE")
    add_format(members)
    for name, text in (
        ("drain", "take nothing new, and move away what runs"),
        ("pause", "take nothing new; what runs stays"),
        ("activate", "take tasks again"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("nodes", nargs="+", metavar="NODE")
    label = actions.add_parser("label", help="set and remove labels")
    label.add_argument("node", metavar="NODE")
    label.add_argument("labels", nargs="+", metavar="KEY=VALUE | KEY-", help="set, or remove")
    remove = actions.add_parser("rm", help="remove a node for good")
    remove.add_argument("nodes", nargs="+", metavar="NODE")
    remove.add_argument(
        "--force", action="store_true", help="also when it is ready or has tasks; its data is lost"
    )
    actions.add_parser("rotate-key", help="give gossip a new key, while it goes on; see `members`")
    for name, text in _DAEMON.items():
        # Everything after these words is the daemon's own to read.
        actions.add_parser(name, help=text, add_help=False).takes_rest = True


def run(given: argparse.Namespace, context: Context) -> int:
    """Do one action."""
    if given.action in _DAEMON:
        from cli.daemons import run_daemon

        return run_daemon("node", given.action, given.settings)
    return _ACTIONS[given.action](given, context)


def _list(_given: argparse.Namespace, context: Context) -> ExitCode:
    from cli.lists import NodesView
    from cli.session import ask
    from cli.texts import word

    reply = ask(context, lambda client: client.list_nodes())
    if reply.header.is_observed is False:
        context.warn("no leader can be asked: how nodes are is unknown")
    context.show(NodesView(reply.nodes))
    for node in reply.nodes:
        for fault in node.faults:
            context.warn(f"{node.record.name}: {word(fault.kind)}: {fault.message}")
    return ExitCode.CONVERGED


def _members(given: argparse.Namespace, context: Context) -> ExitCode:
    from cli.lists import MembersView
    from cli.session import ask

    reply = ask(context, lambda client: client.list_members(given.node))
    context.show(MembersView(reply.members))
    return ExitCode.CONVERGED


def _available(name: str) -> Callable[[argparse.Namespace, Context], ExitCode]:
    """Return the action that wants something else of nodes."""

    def act(given: argparse.Namespace, context: Context) -> ExitCode:
        from dray.model import Availability

        wanted: Availability = Availability[name]
        for node in given.nodes:
            _update(context, node, availability=wanted)
            print(f"node {node}: {wanted.name.lower()}", file=context.out)
        return ExitCode.CONVERGED

    return act


def _label(given: argparse.Namespace, context: Context) -> ExitCode:
    from cli.exits import UsageError

    labels: dict[str, str] = {}
    removed: list[str] = []
    for text in given.labels:
        key, equals, value = text.partition("=")
        if equals and key:
            labels[key] = value
        elif not equals and key.endswith("-") and len(key) > 1:
            removed.append(key[:-1])
        else:
            raise UsageError(f"{text!r} is no label", hint="write KEY=VALUE, or KEY- to remove it")
    _update(context, given.node, labels=labels, labels_removed=removed)
    print(f"node {given.node}: {len(labels)} set, {len(removed)} removed", file=context.out)
    return ExitCode.CONVERGED


def _update(context: Context, node: str, **changes: Any) -> None:
    from cli.session import ask

    ask(context, lambda client: client.update_node(node, **changes))


def _remove(given: argparse.Namespace, context: Context) -> ExitCode:
    from cli.session import ask

    for node in given.nodes:

        async def remove(client: Client, node: str = node) -> Any:
            return await client.remove_node(node, force=given.force)

        reply = ask(context, remove)
        moved = f"; {len(reply.moved)} slots are planned elsewhere" if reply.moved else ""
        print(f"node {node}: removed{moved}", file=context.out)
    return ExitCode.CONVERGED


def _rotate_key(_given: argparse.Namespace, context: Context) -> ExitCode:
    from cli.session import ask

    reply = ask(context, lambda client: client.rotate_gossip_key())
    older = [str(key_id) for key_id in reply.key_ids if key_id != reply.key_id]
    also = f"; nodes still accept {', '.join(older)}" if older else ""
    print(f"gossip seals with key {reply.key_id}{also}", file=context.out)
    return ExitCode.CONVERGED


_ACTIONS: Final[Mapping[str, Callable[[argparse.Namespace, Context], ExitCode]]] = {
    "ls": _list,
    "members": _members,
    "drain": _available("DRAIN"),
    "pause": _available("PAUSE"),
    "activate": _available("ACTIVE"),
    "label": _label,
    "rm": _remove,
    "rotate-key": _rotate_key,
}
