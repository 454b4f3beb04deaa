"""Held-out evaluation of a force field, its metrics and its report."""
