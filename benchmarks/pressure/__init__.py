"""Benchmarks of dynamics at constant pressure."""
