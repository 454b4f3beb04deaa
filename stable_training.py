"""StABlE training and held-out evaluation. See `python stable_training.py --help`."""

import sys

from mdsim.cli.stable import stable_training

if __name__ == "__main__":
    sys.exit(stable_training())
