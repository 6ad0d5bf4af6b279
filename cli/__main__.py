"""What runs when somebody types `dray`?"""

from __future__ import annotations

import gc
import sys

from cli import app

__all__ = ["main"]


def main() -> int:
    """Run the command of this process and return its exit status."""
    status = app.main()
    gc.freeze()  # the process ends: looking once more for cycles costs as much as importing gRPC
    return status


if __name__ == "__main__":
    sys.exit(main())
