"""The dynamics term of a configuration: its references, and a whole training with it."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny import point, train_config, write_world

from mdsim import assembly
from mdsim.assembly import runs
from mdsim.errors import ConfigError
from mdsim.observables import VACF
from mdsim.reporting.scalars import read_scalars
from mdsim.training.terms import DynamicsTerm

LABELS = {"name": "energies_forces", "batch_size": 4}
VACF_8_FS = {"observable": {"name": "vacf", "max_lag_fs": 8.0}}
DIFFUSIVITY = {"observable": {"name": "diffusivity", "fit_start_fs": 4.0, "fit_end_fs": 12.0}}
LANGEVIN = {"timestep_fs": 1.0, "temperature_K": 300.0, "integrator": {"name": "langevin", "friction_per_ps": 10.0}}


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path)


def config_of(root, *targets, integrator=None, **settings):
    config = train_config(root)
    dynamics = config.dynamics.model_dump(mode="json") | LANGEVIN
    dynamics |= {} if integrator is None else {"integrator": integrator}
    window = {"steps": 12, "dump_every_steps": 2, "windows": 3, "points_every_steps": 4}
    term = {"name": "dynamics", "targets": list(targets), **window, **settings}
    return train_config(root, dynamics=dynamics, terms=[term, LABELS], epochs=2)


def term_of(root, *targets, **settings) -> DynamicsTerm:
    config = config_of(root, *targets, **settings)
    data = assembly.dataset(config.data)
    return assembly.weighted_terms(config, data.system(), data, [point(config, data)], 0.0)[0].term


def test_references_are_those_of_the_contiguous_frames(world):
    term = term_of(world, VACF_8_FS, DIFFUSIVITY)
    data = assembly.dataset(train_config(world).data)
    frames = data.contiguous_trajectory()  # 2 fs apart, like the frames of the windows
    for target in term.targets:
        expected = target.observable(data.system(), frames)[0]
        torch.testing.assert_close(target.reference, expected)
    assert isinstance(term.targets[0].observable, VACF) and len(term.targets[0].reference) == 5
    assert (term.settings.n_steps, term.settings.dump_every, term.n_windows) == (12, 2, 3)


def test_references_from_a_file_and_from_a_number(world):
    (world / "vacf.txt").write_text("# lag_fs value\n0 1\n4 0.5\n10 -0.1\n")
    files = {**VACF_8_FS, "reference_file": str(world / "vacf.txt")}
    vacf, diffusivity = term_of(world, files, {**DIFFUSIVITY, "reference_value": 2.3}).targets
    assert vacf.reference.tolist() == pytest.approx([1.0, 0.75, 0.5, 0.3, 0.1])
    assert diffusivity.reference.tolist() == pytest.approx([2.3])


@pytest.mark.parametrize(
    ("target", "settings", "fault"),
    [
        ({**DIFFUSIVITY, "reference_file": "d.txt"}, {}, "single number: set reference_value"),
        ({**VACF_8_FS, "reference_value": 1.0}, {}, "vacf has 5 values; give a file"),
        (VACF_8_FS, {"dump_every_steps": 1}, "terms.dynamics.dump_every_steps: frames every 1 fs"),
        (VACF_8_FS, {"integrator": {"name": "nose_hoover"}}, "terms.dynamics: the adjoint of NoseHooverChain"),
    ],
)
def test_what_does_not_fit_is_refused(world, target, settings, fault):
    with pytest.raises(ConfigError, match=fault):
        term_of(world, target, **settings)


def test_windows_too_short_for_an_observable_are_refused(world):
    with pytest.raises(ValueError, match=r"max_lag_fs = 20.0 needs windows of 11 frames"):
        term_of(world, {"observable": {"name": "vacf", "max_lag_fs": 20.0}})
    with pytest.raises(ValidationError, match=r"steps \(14\) must be a multiple of 2"):
        config_of(world, VACF_8_FS, steps=14)


def test_a_training(world):
    config = config_of(world, VACF_8_FS, {**DIFFUSIVITY, "reference_value": 2.3})
    config = config.model_copy(update={"learn_while_exploring": True, "exploration": "persistent"})
    assert runs.train_stable(config)
    scalars = read_scalars(config.run_path)
    for name in ("loss", "gradient_norm", "diffusivity", "finite_windows", "largest_window"):
        assert np.isfinite(scalars[f"learn/dynamics_{name}"][1]).all()
