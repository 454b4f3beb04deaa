"""Configurations for a data set that run as they are: what is in the data, what follows from it, and the files."""
