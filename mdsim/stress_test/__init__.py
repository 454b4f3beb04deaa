"""Stress test of a force field: dynamics until it breaks, and checks of forces, units and smoothness that explain why."""
