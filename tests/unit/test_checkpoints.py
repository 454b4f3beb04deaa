"""Checkpoints survive crashes and full disks, and refuse what they cannot read."""

import errno
import os
import resource

import numpy as np
import pytest
import torch

from mdsim.checkpoints import (
    force_field_payload,
    generator_state,
    load,
    new_payload,
    restore_generator,
    save_atomically,
)
from mdsim.errors import CheckpointError
from mdsim.models import SchNet, load_force_field, model_config


def _model() -> SchNet:
    return SchNet(hidden_channels=8, num_filters=8, num_interactions=1, num_gaussians=4, species=(1, 6, 8))


def _save(path, **content) -> None:
    save_atomically(path, new_payload("pretraining", **content))


def test_what_is_saved_is_loaded(tmp_path):
    content = {"step": 7, "losses": [1.0, 0.5], "state": {"w": torch.randn(3, dtype=torch.float64)}, "note": "Å"}
    _save(tmp_path / "last.pt", **content)
    loaded = load(tmp_path / "last.pt")
    assert (loaded["kind"], loaded["version"], loaded["step"], loaded["note"]) == ("pretraining", 1, 7, "Å")
    assert torch.equal(loaded["state"]["w"], content["state"]["w"])
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"'weights'.*force_field, pretraining"):
        new_payload("weights")


def _assert_untouched(folder) -> None:
    assert load(folder / "last.pt")["step"] == 1
    assert [path.name for path in folder.iterdir()] == ["last.pt"]


def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path):
    _save(tmp_path / "last.pt", step=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # writing more fails half-way, as on a full disk
    try:
        with pytest.raises(CheckpointError, match=r"last\.pt was not written.*unchanged.*MB"):
            _save(tmp_path / "last.pt", step=2, large=torch.zeros(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    _assert_untouched(tmp_path)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failure_after_writing_leaves_the_old_file(tmp_path, monkeypatch, failing):
    _save(tmp_path / "last.pt", step=1)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(CheckpointError, match="No space left on device"):
        _save(tmp_path / "last.pt", step=2)
    monkeypatch.undo()
    _assert_untouched(tmp_path)


def test_interrupting_the_write_leaves_the_old_file(tmp_path, monkeypatch):
    _save(tmp_path / "last.pt", step=1)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _save(tmp_path / "last.pt", step=2)
    monkeypatch.undo()
    _assert_untouched(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="absent"):
        _save(tmp_path / "absent" / "last.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*nowhere\.pt"):
        load(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.999])
def test_truncated_files_are_refused(tmp_path, fraction):
    _save(tmp_path / "last.pt", weights=torch.randn(5000))
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(CheckpointError, match=r"last\.pt is truncated"):
        load(tmp_path / "last.pt")


@pytest.mark.parametrize("content", [b"hello\n", b"PK\x03\x04 not a zip", b"\x80\x02.", bytes(range(256))])
def test_foreign_files_are_refused(tmp_path, content):
    (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"notes\.txt"):
        load(tmp_path / "notes.txt")


class _Arbitrary:
    """Something that only an unsafe unpickler would build."""


def test_files_with_code_are_refused(tmp_path):
    torch.save({"format": "mdsim", "object": _Arbitrary()}, tmp_path / "unsafe.pt")
    with pytest.raises(CheckpointError, match=r"unsafe\.pt"):
        load(tmp_path / "unsafe.pt")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ([1, 2], "holds a list"),
        ({"epoch": 3}, r"not written by mdsim.*epoch"),
        ({"format": "mdsim", "version": 99, "kind": "pretraining"}, "version 99"),
        ({"format": "mdsim", "version": 1, "kind": "poem"}, "poem"),
    ],
)
def test_other_contents_are_refused(tmp_path, payload, message):
    torch.save(payload, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "other.pt")


def _force_field_file(tmp_path, **changes):
    model = _model()
    payload = force_field_payload(model, {**model_config(model), **changes}, {"data": "aspirin"})
    save_atomically(tmp_path / "model.pt", payload)
    return tmp_path / "model.pt"


def test_a_force_field_comes_back_with_its_species(tmp_path):
    loaded = load_force_field(_force_field_file(tmp_path))
    assert loaded.species.tolist() == [1, 6, 8]
    assert loaded.hyperparameters == _model().hyperparameters
    assert load(tmp_path / "model.pt")["provenance"] == {"data": "aspirin"}


def test_a_payload_is_a_snapshot():
    model = _model()
    payload = force_field_payload(model, model_config(model), {})
    before = payload["state_dict"]["lin1.weight"].clone()
    with torch.no_grad():
        model.lin1.weight.add_(1.0)
    assert torch.equal(payload["state_dict"]["lin1.weight"], before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "oracle"}, r"'oracle'; this release knows \[.*'schnet'"),
        ({"hidden_channels": 10}, "do not fit"),
        ({"depth": 3}, "do not fit"),
    ],
)
def test_models_that_cannot_be_built_are_refused(tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message):
        load_force_field(_force_field_file(tmp_path, **changes))


def test_a_checkpoint_without_a_model_is_no_force_field(tmp_path):
    save_atomically(tmp_path / "metrics.pt", new_payload("evaluation", metrics={"mae": 0.1}))
    with pytest.raises(CheckpointError, match="'evaluation' that holds no force field"):
        load_force_field(tmp_path / "metrics.pt")


def test_random_numbers_continue_where_they_stopped(tmp_path, generator):
    torch.rand(5, generator=generator)
    _save(tmp_path / "last.pt", generator=generator_state(generator))
    expected = torch.randn(100, generator=generator)
    restored = restore_generator(load(tmp_path / "last.pt")["generator"])
    np.testing.assert_array_equal(torch.randn(100, generator=restored), expected)
