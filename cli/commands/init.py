"""Make a cluster in an empty etcd, once."""

from __future__ import annotations

import argparse
from typing import Any

from cli.arguments import add_format
from cli.context import Context
from cli.daemons import load_part
from cli.exits import ExitCode
from cli.settings import OutputFormat
from dray.errors import AlreadyExists

__all__ = ["add_arguments", "run"]

PASSWORD_VARIABLE = "DRAY_SCHEDULER_ETCD_PASSWORD"  # noqa: S105  (a name; the scheduler's own)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--etcd", metavar="URL[,URL…]", required=True, help="client URLs of etcd, all members"
    )
    parser.add_argument(
        "--range",
        dest="range_cidr",
        metavar="CIDR",
        help="addresses of containers; nobody else in your network may use them "
        "(default: 10.192.0.0/11)",
    )
    parser.add_argument(
        "--vip-range",
        dest="vip_range_cidr",
        metavar="CIDR",
        help="addresses of services (default: 10.224.0.0/16)",
    )
    parser.add_argument(
        "--node-prefix",
        dest="node_prefix_length",
        metavar="BITS",
        type=int,
        help="prefix length of one node's share of the range (default: 23, for 508 containers)",
    )
    parser.add_argument(
        "--restored",
        action="store_true",
        help="etcd was restored from a backup: raise the cluster's generation instead of making "
        "one",
    )
    parser.add_argument(
        "--if-absent", action="store_true", help="a cluster that is there already is no error"
    )
    for name in ("cert", "key", "ca"):
        parser.add_argument(f"--etcd-{name}", metavar="PATH", help=f"{name} for etcd (PEM)")
    parser.add_argument(
        "--etcd-user",
        metavar="USER",
        default="",
        help=f"user of etcd; its password is in ${PASSWORD_VARIABLE}",
    )
    add_format(parser)


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Make the cluster and show it."""
    from cli.render import show
    from cli.views import ClusterMadeView

    settings = context.settings
    try:
        made: Any = load_part("scheduler.init", "scheduler").run_init(
            urls=given.etcd,
            files=(given.etcd_cert, given.etcd_key, given.etcd_ca),
            login=(given.etcd_user, dict(settings.environment).get(PASSWORD_VARIABLE, "")),
            insecure=settings.insecure,
            ranges=(given.range_cidr, given.vip_range_cidr, given.node_prefix_length),
            is_restored=given.restored,
        )
    except AlreadyExists as error:
        if not given.if_absent:
            raise
        context.warn(error.message)
        return ExitCode.CONVERGED
    view = ClusterMadeView(
        made.cluster_id,
        made.generation,
        made.range_cidr,
        made.vip_range_cidr,
        made.node_prefix_length,
    )
    show(
        view, settings.output_format or OutputFormat.TABLE, context.out, is_color=settings.is_color
    )
    return ExitCode.CONVERGED
