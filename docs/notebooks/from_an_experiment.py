# %% [markdown]
# # From an experiment
#
# A table of two columns as the reference, and as the target, of a force field for water. A measured $g(r)$ from a
# diffraction experiment has this form. Here the table is written from the bundled reference run (SPC/Fw, 300 K), so
# that the right answer is known. It takes about half a minute on one core.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import mdsim
from mdsim.assembly.references import check_temperature, measured
from mdsim.observables.densities import unvisited

water = mdsim.load_dataset("data/bundled", "water_spcfw", "water", "100")
force_field = mdsim.load_force_field(
    "qm_pretrained_checkpoints/schnet/water_spcfw-water_100_schnet/checkpoints/best_checkpoint.pt"
)

# %% [markdown]
# ## The table
#
# Distance in Å and $g_\mathrm{OO}(r)$, with a comment line. Separators are blanks or commas.

# %%
table = mdsim.RDF(6.0, 0.05, ("O", "O"), "ideal_gas")
g, standard_error = water.reference_run.mean_and_error(table)
columns = np.column_stack([table.bin_centers, g])
np.savetxt("g_OO.dat", columns, fmt="%.4f", header="r (A)   g_OO, 300 K")
print(*Path("g_OO.dat").read_text().splitlines()[:3], sep="\n")

# %% [markdown]
# An evaluation reads it by the name of the result, a training as the reference of a target:
#
# ```yaml
# reference_files:
#   - {observable: rdf_OO, reference_file: g_OO.dat, reference_temperature_K: 300}
# ```
#
# ```yaml
# terms:
#   observables:
#     targets:
#       - {observable: {name: rdf, pair: [O, O], max_distance_A: 5.5, bin_width_A: 0.1}, loss: reverse_kl,
#          reference_file: g_OO.dat, reference_temperature_K: 300}
# ```
#
# The bins must lie within the table. Values are interpolated to their centers:

# %%
rdf = mdsim.RDF(5.5, 0.1, ("O", "O"), "ideal_gas")
target = measured(rdf, "g_OO.dat")
exact, _ = water.reference_run.mean_and_error(rdf)
interpolation_error = float((target - exact).abs().mean())
print(f"{len(target)} bins, interpolated within {interpolation_error:.3f} on average")

# %% [markdown]
# ## Wrong tables
#
# Most mistakes are found before any dynamics. Each of these is refused with one line:


# %%
def refusal(check, *arguments):
    """The error of a check that must fail."""
    try:
        check(*arguments)
    except (mdsim.UserError, ValueError) as error:
        return str(error)
    raise AssertionError("this table was taken")


np.savetxt("counts.dat", columns * [1, 20], fmt="%.4f")  # another normalization
np.savetxt("short.dat", columns[:60], fmt="%.4f")  # ends at 3 Å
np.savetxt("nm.dat", columns * [0.1, 1], fmt="%.4f")  # distances in nm
np.savetxt("three.dat", np.column_stack([columns, standard_error]), fmt="%.4f")  # with a column of errors
refused = {name: refusal(measured, rdf, name) for name in ("counts.dat", "short.dat", "nm.dat", "three.dat")}
refused["temperature"] = refusal(check_temperature, "g_OO.dat", 350.0, 300.0)
for message in refused.values():
    print(message, end="\n\n")
n_refused = len(refused)

# %% [markdown]
# ## A table out of reach
#
# Some tables are well formed but cannot be reached: the estimator learns from frames that the force field visits, and
# has no gradient toward values that no frame has. The share of the reference in such bins is a result of every
# evaluation (`rdf_OO_unvisited`), and a training warns above 10 %. First, short dynamics of the fitted force field:

# %%
langevin = mdsim.LangevinBAOAB(timestep_fs=1.0, temperature_K=300.0, friction_per_ps=1.0)
apart = mdsim.MinimumIntermolecularDistance(1.2)
run = mdsim.simulate(
    force_field, water, langevin, length_ps=0.4, n_replicas=6, frame_interval_fs=20.0, criteria=[apart]
)
n_broken = int(run.verdict.unstable.sum())
simulated = run.mean(rdf)
print(f"{n_broken} of 6 replicas broke within 0.4 ps")

# %% [markdown]
# Then two tables: the one above, and the same with distances 0.6 Å too short, as if of another liquid.

# %%
shifted = np.column_stack([columns[:, 0], np.interp(columns[:, 0] + 0.6, *columns.T)])
np.savetxt("shifted.dat", shifted, fmt="%.4f")
unvisited_right = float(unvisited(measured(rdf, "g_OO.dat"), simulated))
unvisited_shifted = float(unvisited(measured(rdf, "shifted.dat"), simulated))
print(f"unvisited: {100 * unvisited_right:.2f} % of the table, {100 * unvisited_shifted:.1f} % of the shifted one")

# %%
figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
axes.plot(rdf.bin_centers, target, color="black", label="table")
axes.plot(rdf.bin_centers, simulated, label="fitted SchNet, first 0.4 ps")
axes.plot(rdf.bin_centers, measured(rdf, "shifted.dat"), color="gray", linestyle=":", label="shifted table")
axes.set(xlabel="r (Å)", ylabel="g of O-O", xlim=(1.5, 5.5))
axes.legend()
plt.show()

# %% [markdown]
# ## The gradient toward the table
#
# The Boltzmann estimator gives the gradient of a loss between the simulated and the tabulated $g(r)$ with respect to
# all parameters. It needs the frames and nothing else, neither labels nor structures of the experiment.

# %%
stable = run.stable_frames
samples = run.trajectory.positions[stable][-60:]
values = rdf(run.system, run.trajectory)[stable][-60:].double()
kT = mdsim.kT_eV(300.0)


def loss(mean):
    return (mean - target).square().mean()


estimate = mdsim.boltzmann_gradient(
    mdsim.structure_energies(force_field, run.system, samples),
    force_field.parameters(),
    values,
    loss=loss,
    kT=kT,
    minibatch_size=8,
)
squared_norm = sum(float(gradient.double().square().sum()) for gradient in estimate.gradients)
loss_before = float(estimate.loss)
print(f"loss {loss_before:.4f} from {estimate.n_samples} frames, norm of the gradient {squared_norm**0.5:.2g}")

# %% [markdown]
# A small step against it lowers the loss by the product of step and gradient. Reweighting the same frames to the new
# parameters shows that it does:

# %%
predicted_change = -0.02 * loss_before
rate = -predicted_change / squared_norm


@torch.no_grad()
def energies_eV():
    return torch.cat([force_field.energy(run.system, some) for some in samples.split(8)]).double()


old = energies_eV()
with torch.no_grad():
    for parameter, gradient in zip(force_field.parameters(), estimate.gradients, strict=True):
        parameter -= rate * gradient
moved = mdsim.reweighted_mean(values, energies_eV(), old, kT)
measured_change = float(loss(moved.mean)) - loss_before
print(f"change of the loss: predicted {predicted_change:.2e}, reweighted {measured_change:.2e}")
print(f"effective number of frames: {moved.effective_sample_size:.0f} of {len(samples)}")

# %% [markdown]
# A training repeats this with new frames after every few steps, and holds the gradient of the labels against it
# ([liquid water](../water.md), [choosing](../choosing.md)). One step from 60 correlated frames trains nothing.
#
# A measured table also differs from this one in what it does not say: its resolution, its range of $q$, and nuclear
# quantum effects, which classical dynamics does not have. Compare first (`reference_files`), and train on what you
# trust.
