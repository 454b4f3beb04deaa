"""Fetch and convert all data of the published experiments. See `python download_data.py --help`."""

import sys

from mdsim.cli.data import download_data

if __name__ == "__main__":
    sys.exit(download_data())
