"""The `mdsim` commands: arguments become a configuration or a call."""
