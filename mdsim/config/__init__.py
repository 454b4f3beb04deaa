"""Configurations: YAML files, their typed schema, and the recipes shipped with the package."""
