"""Benchmarks. Each script prints tables whose numbers are measured alternately in one process. See BENCHMARKS.md."""
