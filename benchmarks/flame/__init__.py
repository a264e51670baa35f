"""Where the server's time goes, as flame graphs. See docs/benchmarks.md."""
