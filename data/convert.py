"""Turn your own frames into a data set. See `python data/convert.py --help`."""

import sys

from mdsim.convert_cli import convert

if __name__ == "__main__":
    sys.exit(convert())
