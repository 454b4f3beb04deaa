"""SevenNet with the weights that its package comes with."""

import ase.build
import foreign
import numpy as np
import pytest
import torch

from mdsim.calculator import ForceFieldCalculator
from mdsim.errors import ConfigError
from mdsim.models import MODELS, load_force_field

pytestmark = pytest.mark.skipif("sevenn" not in foreign.INSTALLED, reason="sevenn is not installed")


@pytest.mark.parametrize(("name", "modal"), [("7net-0", ""), pytest.param("7net-mf-0", "PBE", marks=pytest.mark.slow)])
def test_published_weights(name, modal):
    from sevenn.calculator import SevenNetCalculator

    path = MODELS["sevenn"].located(name)
    model = load_force_field(path, model="sevenn", options={"modal": modal})  # part of the package: it is trusted
    frozen = [key for key, parameter in model.named_parameters() if not parameter.requires_grad]
    assert "network.rescale_atomic_energy.shift" in frozen and len(frozen) == 7
    mine, theirs = ase.build.bulk("NaCl", "rocksalt", a=5.7), ase.build.bulk("NaCl", "rocksalt", a=5.7)
    for atoms in (mine, theirs):
        atoms.rattle(0.1, seed=1)
    mine.calc = ForceFieldCalculator(model)
    theirs.calc = SevenNetCalculator(name, device="cpu", **({"modal": modal} if modal else {}))
    assert mine.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=2e-5)
    np.testing.assert_allclose(mine.get_forces(), theirs.get_forces(), atol=5e-5)
    np.testing.assert_allclose(mine.get_stress(), theirs.get_stress(), atol=1e-6)


def test_files_that_were_fitted_with_kernels_are_run_with_plain_layers(tmp_path):
    configuration = foreign.sevennet_configuration((1, 8))
    foreign.write_sevennet(tmp_path / "plain.pth", configuration)
    content = torch.load(tmp_path / "plain.pth", weights_only=False)
    content["config"] = {**configuration, "use_oeq": True, "use_flash_tp": False}
    torch.save(content, tmp_path / "oeq.pth")
    plain, found = (
        load_force_field(tmp_path / f"{name}.pth", model="sevenn", allow_unpickling=True) for name in ("plain", "oeq")
    )
    assert found.hyperparameters["configuration"] == plain.hyperparameters["configuration"]
    for name, value in plain.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)


def test_a_modality_must_be_chosen_where_there_are_several():
    path = MODELS["sevenn"].located("7net-mf-0")
    with pytest.raises(ConfigError, match=r"model\.modal: found '', but .* needs one of R2SCAN, PBE"):
        load_force_field(path, model="sevenn")
    with pytest.raises(ConfigError, match=r"model\.modal: found 'PBE', but .* needs none: leave it out"):
        load_force_field(MODELS["sevenn"].located("7net-0"), model="sevenn", options={"modal": "PBE"})
