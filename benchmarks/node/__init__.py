"""What does a node cost, beside `docker run`? `python -m benchmarks.node`; see `__main__`."""
