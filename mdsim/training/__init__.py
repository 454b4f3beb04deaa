"""Pretraining, and StABlE training with its loss terms."""
