"""Benchmarks: each script prints tables of figures measured side by side in one process. See BENCHMARKS.md."""
