"""Suggested configurations for a data set: findings in the data, values that follow from them, and the files."""
