"""Damaged checkpoints of force fields never load as another force field, and never end in a traceback.

`MDSIM_FUZZ=50 python -m pytest tests/fuzz` tries fifty times as many mutations, `MDSIM_FUZZ_SEED=1` others.
"""

import os

import pytest
import torch
from mutations import Outcomes, flipped, restructured, tries, undigested
from tiny import SHIFT_EV, same_bits, write_pretrained

from mdsim.checkpoints import force_field_payload, read, save_atomically
from mdsim.models import GemNetT, NequIP, load_force_field, model_config


@pytest.fixture(params=["schnet", "nequip", "gemnet_t"])
def checkpoint(request, tmp_path):
    if request.param == "schnet":
        return write_pretrained(tmp_path)
    torch.manual_seed(0)
    if request.param == "nequip":
        model = NequIP((1, 8), num_features=2, num_layers=1, radial_mlp_width=4, cutoff=2.5, energy_shift_eV=SHIFT_EV)
    else:
        sizes = dict.fromkeys(("emb_size_atom", "emb_size_edge", "emb_size_trip", "emb_size_rbf", "emb_size_cbf"), 4)
        model = GemNetT(species=(1, 8), num_blocks=1, num_spherical=2, num_radial=3, emb_size_bil_trip=4, **sizes)
    save_atomically(tmp_path / "model.pt", force_field_payload(model, model_config(model), {"seed": 0}))
    return tmp_path / "model.pt"


def test_no_flipped_bit_gives_other_weights(checkpoint):
    content, outcomes = checkpoint.read_bytes(), Outcomes()
    original = load_force_field(checkpoint).state_dict()
    for number, rng in enumerate(tries(400 if "models" in checkpoint.parts else 100)):
        checkpoint.write_bytes(flipped(content, rng))
        loaded = outcomes.of(lambda: load_force_field(checkpoint), f"flip {number}")
        assert loaded is None or same_bits(dict(loaded.state_dict()), dict(original)), f"flip {number}"
    print(outcomes.counts)
    assert outcomes.counts["refused"] > outcomes.counts["accepted"], "the rest lies in the padding between records"


def test_no_flipped_bit_of_the_headers_gives_other_content(checkpoint):
    """The directory at the end of the archive, where checksums, names, sizes and places of the records stand."""
    content, outcomes = checkpoint.read_bytes(), Outcomes()
    start, original = content.index(b"PK\x01\x02"), read(checkpoint)
    for number, rng in enumerate(tries(80)):
        checkpoint.write_bytes(content[:start] + flipped(content[start:], rng))
        loaded = outcomes.of(lambda: read(checkpoint), f"flip {number}")
        assert loaded is None or same_bits(loaded, original), f"flip {number}"
    print(outcomes.counts)


@pytest.mark.parametrize("checkpoint", ["schnet"], indirect=True)
def test_shortened_and_patched_files_are_refused(checkpoint):
    content, outcomes = checkpoint.read_bytes(), Outcomes()
    for number, rng in enumerate(tries(60)):
        cut = rng.randrange(len(content))
        damaged = rng.choice([content[:cut], content[cut:], content[:cut] + os.urandom(16) + content[cut + 16 :]])
        checkpoint.write_bytes(damaged)
        outcomes.of(lambda: load_force_field(checkpoint), f"patch {number}")
    assert outcomes.counts["accepted"] < 10, "only in the padding between records"


def test_well_formed_files_with_other_content_are_refused_or_the_same(checkpoint):
    payload, outcomes = undigested(read(checkpoint)), Outcomes()
    before = load_force_field(checkpoint)
    for rng in tries(80):
        changed, how = restructured(payload, rng)
        torch.save(changed, checkpoint)
        loaded = outcomes.of(lambda: load_force_field(checkpoint), how)
        if loaded is None:
            continue
        of_nothing = same_bits(changed["state_dict"], payload["state_dict"])  # another number in an empty tensor
        assert "provenance" in how or how.startswith("set model.") or of_nothing, f"{how} was accepted"
        assert all(bool(torch.isfinite(value).all()) for value in loaded.state_dict().values()), how
        assert same_bits(dict(loaded.state_dict()), dict(before.state_dict())), how
    print(outcomes.counts)
    assert outcomes.counts["refused"] > outcomes.counts["accepted"]


@pytest.mark.parametrize("checkpoint", ["schnet"], indirect=True)
def test_well_formed_files_with_other_content_are_refused_by_their_digest(checkpoint):
    payload, outcomes = read(checkpoint), Outcomes()
    for rng in tries(60):
        changed, how = restructured(payload, rng)
        torch.save(changed, checkpoint)
        loaded = outcomes.of(lambda: load_force_field(checkpoint), how)
        assert loaded is None or "digest" in how or same_bits(changed, payload), f"{how} was accepted"
