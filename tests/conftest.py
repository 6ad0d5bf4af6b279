"""What every test gets: the guards, reproducible examples, and the lab's fixtures."""

from __future__ import annotations

import importlib.util
import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.guard", "tests.report"]
if importlib.util.find_spec("tests.lab") and importlib.util.find_spec("tests.lab.fixtures"):
    pytest_plugins.append("tests.lab.fixtures")

# No example database: a failure prints a blob that reproduces it anywhere.
settings.register_profile(
    "local",
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "local")
