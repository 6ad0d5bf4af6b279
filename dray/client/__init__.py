"""The client library: what other programs import to talk to a cluster."""

from dray.client.channels import ClientLimits
from dray.client.client import Client, Write
from dray.client.streams import ExecSession
from dray.client.sync import SyncClient, SyncExecSession

__all__ = ["Client", "ClientLimits", "ExecSession", "SyncClient", "SyncExecSession", "Write"]
