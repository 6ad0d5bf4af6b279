"""Show what a node's DNS answers for a name, and why, endpoint by endpoint."""

from __future__ import annotations

import argparse

from cli.arguments import add_format
from cli.context import Context
from cli.exits import ExitCode

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("name", help="absolute, or as a container of --project would ask")
    parser.add_argument("--type", default="A", help="A, AAAA, SRV, PTR … (default: A)")
    parser.add_argument("-n", "--node", default="", help="the node to ask (default: any)")
    parser.add_argument(
        "-p", "--project", default="", metavar="NAME", help="ask as a container of this project"
    )
    parser.add_argument("--service", default="", help="… and of this service")
    add_format(parser)


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Show the answer; the exit status says whether there is one."""
    from cli.session import ask
    from cli.settings import OutputFormat
    from cli.standing import DnsView
    from dray.views import DnsQuery

    query = DnsQuery(given.name, given.type.upper(), given.project, given.service)
    reply = ask(context, lambda client: client.explain_dns(query, given.node))
    view = DnsView(reply)
    if context.settings.output_format in (None, OutputFormat.TABLE):
        context.out.writelines(f"{line}\n" for line in view.lines())
    context.show(view)
    answered = reply.answer is not None and reply.answer.code == "NOERROR"
    return ExitCode.CONVERGED if answered else ExitCode.REFUSED
