"""What other programs import: the model of a dray cluster, its units, names and errors.

The heavier parts stay in modules of their own, so that importing `dray` costs milliseconds:
`dray.compose` (the Compose loader), `dray.convert` (model and protobuf), `dray.tls` (channels and
servers).
"""

from dray.errors import DrayError, ErrorCode

__all__ = ["DrayError", "ErrorCode", "__version__"]

__version__ = "0.1.0.dev0"
