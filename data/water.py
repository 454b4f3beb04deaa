"""Fetch and convert sizes of a published data set. See `python data/water.py --help`."""

import sys

from mdsim.data_cli import one_set

if __name__ == "__main__":
    sys.exit(one_set("water"))
