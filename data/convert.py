"""Convert custom frames to a data set. See `python data/convert.py --help`."""

import sys

from mdsim.cli.convert import convert

if __name__ == "__main__":
    sys.exit(convert())
