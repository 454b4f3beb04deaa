"""The `mdsim` command line. Each module has the arguments and the entry points of related commands."""
