"""TensorBoard event files, written in the thread that logs.

TensorBoard's own writer passes events to a separate thread. When the folder vanishes or the disk is full, that thread
ends in a traceback and the run learns of it later or never; here it is an `OSError` of the call that wrote.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import custom_scalars, hparams, scalar, text

FILE_VERSION = "brain.Event:2"
FLUSH_EVERY_S = 10.0
_numbers = itertools.count()  # several files of one process in one second


class EventFile:
    """One event file in a folder.

    Args:
        folder: is made where it is absent.
        purge_step: readers drop what earlier files hold at this step or later.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        place = f"{socket.gethostname()}.{os.getpid()}.{next(_numbers):04d}"  # readers sort files by name
        name = f"events.out.tfevents.{int(time.time()):010d}.{place}"
        self.path = folder / name
        self._file = self.path.open("wb")
        self._records = RecordWriter(self._file)
        self._flushed = time.monotonic()
        self._write(Event(file_version=FILE_VERSION))
        if purge_step is not None:
            self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))
        self.flush()

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Write a number at a step."""
        self._add(scalar(name, value), step)

    def add_text(self, name: str, content: str, step: int) -> None:
        """Write Markdown at a step."""
        self._add(text(name, content), step)

    def add_png(self, name: str, content: bytes, step: int) -> None:
        """Write an image as it is in its file."""
        width, height = struct.unpack(">II", content[16:24])  # the first chunk of a PNG
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=content)
        self._add(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def add_hyperparameters(self, values: Mapping[str, bool | int | float | str], metrics: Sequence[str]) -> None:
        """Settings, and the scalars that show what came of them, for TensorBoard's page HParams."""
        experiment, start, _ = hparams(dict(values), dict.fromkeys(metrics, 0.0))
        self._add(experiment, 0)
        self._add(start, 0)

    def add_layout(self, title: str, charts: Mapping[str, Sequence[str]]) -> None:
        """Charts of several scalars each, on TensorBoard's page Custom Scalars."""
        layout = {chart: ["Multiline", [re.escape(name) for name in names]] for chart, names in charts.items()}
        self._add(custom_scalars({title: layout}), 0)

    def flush(self) -> None:
        """Hand everything to the file system; refuse to go on writing into a file that was removed."""
        self._file.flush()
        self._flushed = time.monotonic()
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path} was removed while the run goes on")

    def close(self) -> None:
        """Write what is left and close the file; what was removed is not missed at the end."""
        self._file.close()

    def _add(self, summary: Summary, step: int) -> None:
        self._write(Event(step=step, summary=summary))
        if time.monotonic() - self._flushed > FLUSH_EVERY_S:
            self.flush()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
