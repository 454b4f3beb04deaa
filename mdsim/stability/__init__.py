"""Stability criteria, the verdict on each replica, and survival analysis."""
