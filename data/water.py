"""Fetch and convert sizes of a published data set. See `python data/water.py --help`."""

import sys

from mdsim.cli.data import one_set

if __name__ == "__main__":
    sys.exit(one_set("water"))
