"""`python -m mdsim.cli`, the same as `mdsim`."""

import sys

from mdsim.cli.main import main

sys.exit(main())
