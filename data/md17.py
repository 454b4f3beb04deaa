"""Fetch and convert sizes of a published data set. See `python data/md17.py --help`."""

import sys

from mdsim.cli.data import one_set

if __name__ == "__main__":
    sys.exit(one_set("md17"))
