"""Readers of other formats, and the published data sets."""
