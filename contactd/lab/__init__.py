"""A real PBX, a "public network" and a daemon on this machine, for the demo, tests and benchmarks."""
