"""How many instructions a launch takes: no neighbour on the machine changes them. See docs/benchmarks.md."""
