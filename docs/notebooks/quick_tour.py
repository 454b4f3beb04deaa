# %% [markdown]
# # Quick tour
#
# From `import mdsim` to a survival curve, with data and force fields of the repository. It takes about half a minute
# on one core.

# %%
import matplotlib.pyplot as plt
import numpy as np

import mdsim

# %% [markdown]
# ## A data set and a force field
#
# The data are frames of aspirin at 500 K, labeled with GFN2-xTB. The force field is a SchNet that was fitted to the
# energies and forces of 38 of them.

# %%
data = mdsim.load_dataset("data/bundled", "aspirin_gfn2", "aspirin", "40")
fitted = mdsim.load_force_field(
    "qm_pretrained_checkpoints/schnet/aspirin_gfn2-aspirin_40_schnet/checkpoints/best_checkpoint.pt"
)
print(len(data.train), "training frames,", len(data.test), "test frames of", data.system().n_atoms, "atoms")

# %% [markdown]
# On test frames its forces are good. The mean absolute error is a tenth of the root mean square force:

# %%
frames = data.test[:200]
energy, forces = fitted(data.system(), frames.positions)
force_mae_meV_per_A = 1000 * float((forces - frames.forces).abs().mean())
typical_meV_per_A = 1000 * float(frames.forces.square().mean().sqrt())
print(f"force MAE {force_mae_meV_per_A:.0f} meV/Å of {typical_meV_per_A:.0f} meV/Å")

# %% [markdown]
# ## How long does it last?
#
# Sixteen replicas start at test frames with velocities of 500 K. A replica is broken as soon as a bond differs from
# its mean length in the data by 0.25 Å. The other replicas go on.

# %%
length_ps = 2.0
n_replicas = 16
langevin = mdsim.LangevinBAOAB(timestep_fs=1.0, temperature_K=500.0, friction_per_ps=0.1)
intact = mdsim.BondLengthDeviation(data.reference_bond_lengths(), tolerance_A=0.25)


def simulated(force_field):
    return mdsim.simulate(
        force_field,
        data,
        langevin,
        length_ps=length_ps,
        n_replicas=n_replicas,
        frame_interval_fs=20.0,
        criteria=[intact],
    )


before = simulated(fitted)
n_broken_before = int(before.verdict.unstable.sum())
print(f"{n_broken_before} of {n_replicas} replicas broke within {length_ps:g} ps")

# %% [markdown]
# A good force error is not enough. The same network after StABlE training (`make stable`) used no new labels:

# %%
trained = mdsim.load_force_field("stable_checkpoints/aspirin_gfn2/schnet_aspirin_default/last.pt")
after = simulated(trained)
n_broken_after = int(after.verdict.unstable.sum())
print(f"{n_broken_after} of {n_replicas} replicas broke within {length_ps:g} ps")

# %% [markdown]
# ## The survival curve
#
# Replicas that did not break are *censored*: their stable time is at least the length of the run. `kaplan_meier` and
# the mean stable time, restricted to the length of the run, account for this.

# %%
times_ps = np.linspace(0, length_ps, 401)
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for label, simulation in {"fitted": before, "StABlE-trained": after}.items():
    survival = mdsim.kaplan_meier(simulation.lifetimes)
    axes.step(times_ps, survival.at(times_ps), where="post", label=label)
    mean = mdsim.restricted_mean_interval(simulation.lifetimes, horizon=length_ps, rng=np.random.default_rng(0))
    print(f"{label}: {mean.estimate:.2f} ps [{mean.low:.2f}, {mean.high:.2f}] of {length_ps:g} ps")
axes.set(xlabel="time (ps)", ylabel="fraction of replicas stable", ylim=(0, 1.04), xlim=(0, length_ps))
axes.legend()
plt.show()

# %% [markdown]
# Brackets are 95 % intervals over replicas. The whole comparison, with longer runs and three seeds, is in [the
# recipe](../recipe.md).
#
# ## What happens to the structure
#
# Averages exclude the frames after a break. The distribution of angles shows what the survival curve does not: the
# fitted force field folds the molecule before it breaks a bond.

# %%
angles = mdsim.ADF(bin_width_deg=2.0)
reference, _ = mdsim.reference_from_frames(angles, data.system(), data.test.positions)
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.plot(angles.bin_centers, reference, color="black", label="data")
areas = []
for label, simulation in {"fitted": before, "StABlE-trained": after}.items():
    density = simulation.mean(angles)
    areas.append(float((density - reference).abs().sum()) * angles.bins.width)
    axes.plot(angles.bin_centers, density, label=f"{label}: error {areas[-1]:.3f}")
angle_error_before, angle_error_after = areas
axes.set(xlabel="angle (°)", ylabel="density (1/°)", xlim=(30, 180))
axes.legend()
plt.show()

# %% [markdown]
# ## Next
#
# - [Why it blows up](why_it_blows_up.py): which coordinate leaves first, and what the energy does there.
# - [Stabilize your model](stabilize_your_model.py): the same from a file of frames.
# - [In Python](../python.md): the public names by task.
