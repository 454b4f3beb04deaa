"""The records of models of other packages."""

from __future__ import annotations

from mdsim.models.record import Chosen, Foreign, ModelRecord, Setting, StartingPoint

#: A fit that fine-tunes: small steps, and energies per atom, since the weights fit already.
FINE_TUNING = StartingPoint(
    fit={
        "optimizer": Chosen("adam"),
        "learning_rate": Chosen(1.0e-3, "small: the weights are fitted already"),
        "loss": Chosen("mse"),
        "energy_per_atom": Chosen(True),
        "energy_coefficient": Chosen(1000.0),
        "force_coefficient": Chosen(1000.0),
    },
    warmup_steps=0,
    most_frames_per_batch=5,
    frames_per_gradient=10,
    pairs_per_second=20_000,
    learning_rate=Chosen(1.0e-3, "1e-4 changes little: weights of equivariant layers are of order one"),
)

MACE = ModelRecord(
    name="mace",
    title="MACE",
    description="A MACE (Batatia et al., NeurIPS 2022) of the package mace-torch.",
    factory="mdsim.models.adapters.mace:MACE",
    settings={},
    start=FINE_TUNING,
    foreign=Foreign(
        reader="mdsim.models.adapters.mace:read",
        files="a `.model` file of `mace_run_train`, or of a foundation model",
        package="mace-torch",
        module="mace",
        writer="mdsim.models.adapters.mace:write",
        suffix=".model",
        options={"head": Setting("", "The head that gives the energies; empty: the last, that of a fine-tuning.")},
    ),
)

SEVENNET = ModelRecord(
    name="sevenn",
    title="SevenNet",
    description="A SevenNet (Park et al., J. Chem. Theory Comput. 20, 4857 (2024)) of the package sevenn.",
    factory="mdsim.models.adapters.sevennet:SevenNet",
    settings={},
    start=FINE_TUNING,
    foreign=Foreign(
        reader="mdsim.models.adapters.sevennet:read",
        files="a `.pth` checkpoint of `sevenn`, or the name of one that its package has, such as `7net-0`",
        package="sevenn",
        module="sevenn",
        writer="mdsim.models.adapters.sevennet:write",
        suffix=".pth",
        options={"modal": Setting("", "The modality (training data) that gives the energies, of models with several.")},
        locator="mdsim.models.adapters.sevennet:located",
    ),
)

NEQUIP_PACKAGE = ModelRecord(
    name="nequip_package",
    title="NequIP (package)",
    description="A NequIP or Allegro of the package nequip.",
    factory="mdsim.models.adapters.nequip_package:NequIPPackage",
    settings={},
    start=FINE_TUNING,
    foreign=Foreign(
        reader="mdsim.models.adapters.nequip_package:read",
        files="a `.ckpt` of `nequip-train` or a `.nequip.zip` of `nequip-package`",
        package="nequip",
        module="nequip",
        writer="mdsim.models.adapters.nequip_package:write",
        suffix=".ckpt",
    ),
)

METATOMIC = ModelRecord(
    name="metatomic",
    title="metatomic",
    description="A model in the exchange format metatomic, of any architecture.",
    factory="mdsim.models.adapters.metatomic:Metatomic",
    settings={},
    start=FINE_TUNING,
    foreign=Foreign(
        reader="mdsim.models.adapters.metatomic:read",
        files="a `.pt` file that an engine runs with metatomic",
        package="metatomic-torch",
        module="metatomic.torch",
        writer="mdsim.models.adapters.metatomic:write",
        suffix=".pt",
    ),
)

RECORDS = (MACE, SEVENNET, NEQUIP_PACKAGE, METATOMIC)
