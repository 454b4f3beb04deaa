"""Gradients of ensemble averages with respect to the parameters of a force field."""
