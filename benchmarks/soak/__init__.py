"""An hour of everyday load on a real server, to see what grows. `python -m benchmarks.soak --help`."""
