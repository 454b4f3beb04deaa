"""Stress test of a force field: dynamics until it breaks, and checks that explain why."""
