"""joblet beside others, in one run. See docs/benchmarks.md."""
