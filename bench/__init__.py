"""Benchmarks: what contactd adds, each figure against the bare thing in the same run."""
