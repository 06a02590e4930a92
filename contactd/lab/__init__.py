"""A real PBX, a "public network" and a daemon on this machine, for demo, tests and benchmarks."""
