"""Checkpoints: crashes, full disks, and rejection of damaged files."""

import errno
import os
import resource
from pathlib import Path

import pytest
import torch

from mdsim import payloads
from mdsim.checkpoints import (
    force_field_payload,
    load,
    load_state,
    new_payload,
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


def _changed_file(tmp_path, change) -> Path:
    """A checkpoint of a force field that `change` has altered in place."""
    payload = torch.load(_force_field_file(tmp_path), weights_only=True)
    del payload["digest"]  # as in a file of an earlier release
    change(payload)
    torch.save(payload, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def _set(*path):
    *parents, last, value = path

    def change(payload) -> None:
        for key in parents:
            payload = payload[key]
        payload[last] = value

    return change


def _drop(*path):
    *parents, last = path

    def change(payload) -> None:
        for key in parents:
            payload = payload[key]
        del payload[last]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _set("state_dict", "energy_shift_eV", torch.tensor(float("nan"), dtype=torch.float64)),
            "eV: expected finite",
        ),
        (
            _set("state_dict", "lin2.bias", torch.tensor([float("inf")])),
            r"lin2\.bias: expected finite",
        ),
        (
            _set("state_dict", "lin2.bias", torch.zeros(1, dtype=torch.float64)),
            r"lin2\.bias: expected float32",
        ),
        (
            _set("state_dict", "lin2.bias", torch.zeros(2)),
            r"of shape \(1\), found float32 of shape \(2,\)",
        ),
        (_set("state_dict", "lin2.bias", 1.0), r"lin2\.bias: expected .*, found 1\.0"),
        (_set("state_dict", "extra", torch.zeros(1)), "has the unknown keys extra"),
        (_drop("state_dict", "lin2.bias"), r"misses lin2\.bias"),
        (_drop("state_dict", "species"), "species"),
        (_set("state_dict", "species", torch.tensor([1, 6, 800])), r"\[1, 6, 800\] are no atomic numbers"),
        (_set("state_dict", []), "state_dict: expected names, found a list of 0"),
        (_set("model", "cutoff", -1.0), "the cutoff is -1|is not what the hyperparameters say"),
        (_set("model", "cutoff", 4.0), r"distance_expansion\.offset is not what the hyperparameters say"),
        (_set("model", "cutoff", float("nan")), "do not fit|the cutoff is nan"),
        (_drop("model", "cutoff"), "it misses cutoff"),
        (_drop("model", "num_gaussians"), "it misses num_gaussians|expected"),
        (_set("model", "num_gaussians", 1), "do not fit"),
        (_set("model", "hidden_channels", 10**6), "hidden_channels is 1000000, and the file holds"),
        (_set("model", "name", [1]), r"holds a model \[1\]; this release knows"),
        (_set("model", None), "model: expected names, found None"),
        (_set("version", True), "has version True"),
        (_drop("model"), "holds no force field"),
    ],
)
def test_a_force_field_that_cannot_be_right_is_refused_in_one_line(tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        load_force_field(_changed_file(tmp_path, change))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 800


def test_a_cutoff_beyond_all_neighbor_lists_is_refused(tmp_path):
    def change(payload) -> None:
        payload["model"]["cutoff"] = 1e9
        payload["state_dict"]["distance_expansion.offset"] = torch.linspace(0.0, 1e9, 4)

    with pytest.raises(CheckpointError, match=r"the cutoff is 1e\+09 Å, expected up to 50 Å"):
        load_force_field(_changed_file(tmp_path, change))


def test_every_bit_of_a_record_counts(tmp_path):
    """A changed bit of the weights is found by its checksum, which `torch.load` does not look at."""
    path = _force_field_file(tmp_path)
    content = bytearray(path.read_bytes())
    weight = load(path)["state_dict"]["lin1.weight"].numpy().tobytes()
    content[content.index(weight) + 3] ^= 0x40  # in the exponent
    path.write_bytes(content)
    assert not torch.equal(torch.load(path, weights_only=True)["state_dict"]["lin1.weight"], _model().lin1.weight)
    with pytest.raises(CheckpointError, match=r"checksum|CRC"):
        load(path)


@pytest.mark.parametrize("strange", [torch.zeros(3).to_sparse(), torch.zeros(3, device="meta")], ids=["sparse", "meta"])
def test_tensors_of_kinds_that_are_never_written_are_no_content_of_ours(tmp_path, strange):
    path = tmp_path / "strange.pt"
    torch.save({"format": "mdsim", "version": 1, "kind": "force_field", "model": strange, "digest": "0" * 64}, path)
    with pytest.raises(CheckpointError, match=r"strange\.pt"):
        load(path)


def test_content_that_was_exchanged_is_found_by_its_digest(tmp_path):
    payload = torch.load(_force_field_file(tmp_path), weights_only=True)
    torch.save(payload, tmp_path / "again.pt")
    assert load(tmp_path / "again.pt")["provenance"] == {"data": "aspirin"}
    payload["state_dict"]["lin1.weight"] += 1e-3
    torch.save(payload, tmp_path / "again.pt")
    with pytest.raises(CheckpointError, match=r"again\.pt: its content is not what was written"):
        load_force_field(tmp_path / "again.pt")


def test_files_of_old_torch_are_read_with_a_warning(tmp_path, caplog):
    model = _model()
    payload = force_field_payload(model, model_config(model), {})
    torch.save(payload, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with caplog.at_level("WARNING", logger="mdsim"):
        loaded = load_force_field(tmp_path / "old.pt")
    assert torch.equal(loaded.lin1.weight, model.lin1.weight)
    assert "without checksums" in caplog.text


def test_a_state_of_another_form_is_refused(tmp_path):
    _save(tmp_path / "last.pt", training={"epoch": 3})
    form = {"epoch": payloads.number(low=0, whole=True)}
    assert load_state(tmp_path / "last.pt", "pretraining", "training", form) == {"epoch": 3}
    with pytest.raises(CheckpointError, match=r"last\.pt: training.epoch: expected a value of type str, found 3;"):
        load_state(tmp_path / "last.pt", "pretraining", "training", {"epoch": str})
    with pytest.raises(CheckpointError, match="misses state"):
        load_state(tmp_path / "last.pt", "pretraining", "state", form)


def test_a_checkpoint_without_a_model_is_no_force_field(tmp_path):
    save_atomically(tmp_path / "metrics.pt", new_payload("evaluation", metrics={"mae": 0.1}))
    with pytest.raises(CheckpointError, match="'evaluation' that holds no force field"):
        load_force_field(tmp_path / "metrics.pt")
