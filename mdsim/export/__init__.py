"""Force fields of mdsim for other engines: scripts that run them, and files that they read.

One module per engine. `registry.EXPORTERS` names them.
"""
