"""Reference data: the file format, the folders of a data set, and the division of frames."""

from mdsim.datasets.folder import Dataset, Metadata, load_dataset, write_dataset
from mdsim.datasets.mixed import MixedFrames
from mdsim.datasets.mixed_folder import MixedDataset, load_mixed_dataset
from mdsim.datasets.npz import Frames
from mdsim.errors import DatasetError

__all__ = [
    "Dataset",
    "DatasetError",
    "Frames",
    "Metadata",
    "MixedDataset",
    "MixedFrames",
    "load_dataset",
    "load_mixed_dataset",
    "write_dataset",
]
