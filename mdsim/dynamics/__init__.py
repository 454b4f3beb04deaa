"""Molecular dynamics of many replicas."""
