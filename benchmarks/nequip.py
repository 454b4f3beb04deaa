"""Benchmark of NequIP dynamics on the tetrapeptide: milliseconds per step of four implementations.

    python -m benchmarks.nequip [--threads 2]

    plain        `NequIP` with frozen parameters and a neighbor list
    tabulated    the fast path of `bind(fast=True)`
    eager        as in the published code: trainable parameters, a neighbor search per step, `create_graph`
    package      a model of the same size in the `nequip` package, driven by ASE, one replica after the other

The last one needs the extra `test`. Its weights are random, because speed does not depend on them. That equal weights
give equal forces is tested in `tests/unit/models/nequip/test_package.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from ase import Atoms, units
from ase.data import chemical_symbols
from ase.md.langevin import Langevin

from benchmarks.cases import Case, load_case
from benchmarks.common import announce, arguments, median_seconds, print_table, ratio_rows
from mdsim.dynamics.simulate import simulate
from mdsim.integrators import LangevinBAOAB
from mdsim.models.nequip.fast.vectors import KNOTS, SPLINE_ORDER
from mdsim.models.nequip.model import NequIP
from mdsim.neighbors import neighbors

TIMESTEP_FS = 1.0
FRICTION_PER_PS = 1.0
REPLICAS = (1, 16)
STEPS = {1: 20, 16: 3}


def dynamics(case: Case, n_replicas: int, potential: Callable) -> Callable[[], object]:
    """A few BAOAB steps with a potential of this package."""
    generator = torch.Generator().manual_seed(0)
    integrator = LangevinBAOAB(TIMESTEP_FS, case.temperature_K, FRICTION_PER_PS)
    state = integrator.init(case.system, potential, *case.start(n_replicas))
    n_steps = STEPS[n_replicas]
    return lambda: simulate(case.system, potential, integrator, state, n_steps, n_steps, generator)


def eager_potential(case: Case) -> Callable:
    """A potential with a neighbor search per call, and a graph to parameters and forces."""
    force_field = case.force_field.requires_grad_(True)

    def potential(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        energy, forces = force_field(case.system, positions, create_graph=True)
        return energy.detach(), forces.detach()

    return potential


def package_dynamics(case: Case, n_replicas: int) -> Callable[[], object]:
    """The same number of steps of ASE's Langevin dynamics, one replica after the other."""
    calculator = package_calculator(case)
    positions, _ = case.start(n_replicas)
    friction = FRICTION_PER_PS / 1e3 / units.fs
    runs = []
    for replica in positions:
        atoms = Atoms(case.system.atomic_numbers.numpy(), replica.numpy(), calculator=calculator)
        thermostat = {"temperature_K": case.temperature_K, "friction": friction, "fixcm": False}
        runs.append(Langevin(atoms, TIMESTEP_FS * units.fs, **thermostat))

    def run() -> None:
        for dynamics_of_replica in runs:
            dynamics_of_replica.run(STEPS[n_replicas])

    return run


def package_calculator(case: Case):
    """The `nequip` package's calculator around a model with the hyperparameters of the case's force field."""
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
    from nequip.integrations.ase import NequIPCalculator
    from nequip.model import FullNequIPGNNModel
    from nequip.utils.global_state import set_global_state

    before = torch.get_default_dtype()
    set_global_state()
    h, symbols = case.force_field.hyperparameters, [chemical_symbols[z] for z in case.force_field.species.tolist()]
    channels, layers = h["num_features"], h["num_layers"]
    hidden = "+".join(f"{channels}x{degree}{parity}" for degree in range(h["l_max"] + 1) for parity in "eo")
    model = FullNequIPGNNModel(
        seed=0,
        model_dtype="float32",
        r_max=h["cutoff"],
        type_names=symbols,
        num_bessels=h["num_bessels"],
        radial_mlp_depth=layers * [h["radial_mlp_depth"]],
        radial_mlp_width=layers * [h["radial_mlp_width"]],
        feature_irreps_hidden=(layers - 1) * [hidden] + [f"{channels}x0e"],
        irreps_edge_sh=h["l_max"],
        type_embed_num_features=channels,
        readout_mlp_hidden_layers_depth=1,
        readout_mlp_hidden_layers_width=channels // 2,
        readout_mlp_nonlinearity=None,
        bessel_trainable=True,
        polynomial_cutoff_p=h["polynomial_cutoff_p"],
        avg_num_neighbors=float(case.force_field.avg_num_neighbors),
        per_type_energy_scales=dict.fromkeys(symbols, 1.0),
        per_type_energy_shifts=dict.fromkeys(symbols, 0.0),
    )
    torch.set_default_dtype(before)  # the package sets float64 as the default type of torch
    transforms = [ChemicalSpeciesToAtomTypeMapper(symbols), NeighborListTransform(h["cutoff"])]
    return NequIPCalculator(model.eval(), "cpu", transforms=transforms)


def needed(model: NequIP, n_atoms: int, n_pairs: float) -> tuple[float, float]:
    """Minimum floating-point operations and bytes for energies and forces of one replica.

    Weights are interpolated (six coefficients each). A coupling takes two operations per nonzero coefficient and
    channel, in both directions. Forces take three times as many again: derivatives by features, harmonics and weights.
    Linear maps are applied to all atoms, forward and backward. Bytes: the tables once, positions and forces.
    """
    flops, table, channels = 0.0, 0.0, model.hyperparameters["num_features"]
    for layer in model.layers:
        convolution = layer.convolution
        coefficients = sum(int((tensor.abs() > 1e-12).sum()) for tensor in convolution.exact)
        flops += n_pairs * channels * (2 * 2 * coefficients * 4 + len(convolution.paths) * 24)
        table += len(convolution.paths) * channels
        linear = sum(ir.dim * layer.linear_1.weights[name].numel() for ir, name in layer.linear_1.irreps.items())
        linear += sum(ir.dim * layer.linear_2.weights[name].numel() for ir, name in layer.linear_2.irreps.items())
        own = layer.self_connection.linear
        linear += sum(ir.dim * own.weights[name].numel() for ir, name in own.irreps.items()) / len(model.species)
        flops += 2 * 2 * n_atoms * linear
    return flops, 4 * SPLINE_ORDER * KNOTS * table + 24 * n_atoms


def main() -> None:
    torch.set_num_threads(arguments(__doc__).parse_args().threads)
    machine = announce()
    case = load_case("nequip", "tetrapeptide")
    model = case.force_field
    assert isinstance(model, NequIP)
    for n_replicas in REPLICAS:
        actions = {
            "eager": dynamics(case, n_replicas, eager_potential(case)),
            "plain": dynamics(case, n_replicas, model.bind(case.system)),
            "tabulated": dynamics(case, n_replicas, model.bind(case.system, fast=True)),
        }
        if find_spec("nequip") is not None:
            actions["package"] = package_dynamics(case, n_replicas)
        taken = {name: t / STEPS[n_replicas] for name, t in median_seconds(actions).items()}
        print_table(
            "NequIP, 3 layers, 32 channels, l_max 1, tetrapeptide (42 atoms), Langevin",
            ["replicas", "path", "ms/step", "replica-steps/s", "speed-up"],
            ratio_rows([str(n_replicas)], taken, n_replicas, "eager"),
        )
        positions, _ = case.start(n_replicas)
        n_pairs = neighbors(case.system, positions, model.cutoff).n_pairs / n_replicas
        flops, n_bytes = needed(model, case.system.n_atoms, n_pairs)
        print("tabulated: " + machine.roofline(taken["tabulated"], n_replicas * flops, n_bytes), flush=True)


if __name__ == "__main__":
    main()
