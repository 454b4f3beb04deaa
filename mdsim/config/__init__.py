"""Configurations: YAML files, their typed schema, and the recipes that come with the package."""
