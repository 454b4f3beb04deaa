"""Fit a force field to energies and forces; validate a fit; predict frames. See `python pretraining.py --help`."""

import sys

from mdsim.cli.pretrain import pretraining

if __name__ == "__main__":
    sys.exit(pretraining())
