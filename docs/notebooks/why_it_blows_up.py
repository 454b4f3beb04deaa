# %% [markdown]
# # Why it blows up
#
# The anatomy of one instability: which coordinate leaves the range of the data first, what the energy does along it,
# and what breaks later. It needs the extra `data` for GFN2-xTB, and takes half a minute on one core.

# %%
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from tblite.ase import TBLite

import mdsim
from mdsim.geometry import angles_deg, pair_distances
from mdsim.stability.departures import Departures, sustained_frames
from mdsim.stability.support import support_of

data = mdsim.load_dataset("data/bundled", "aspirin_gfn2", "aspirin", "40")
force_field = mdsim.load_force_field(
    "qm_pretrained_checkpoints/schnet/aspirin_gfn2-aspirin_40_schnet/checkpoints/best_checkpoint.pt"
)
system = data.system()

# %% [markdown]
# ## Replicas that break
#
# A bond is broken when it differs from its mean by 0.25 Å. Frames are stored every 5 fs, to see what comes before.

# %%
frame_fs = 5.0
langevin = mdsim.LangevinBAOAB(timestep_fs=1.0, temperature_K=500.0, friction_per_ps=1.0)
intact = mdsim.BondLengthDeviation(data.reference_bond_lengths(), tolerance_A=0.25)
run = mdsim.simulate(
    force_field, data, langevin, length_ps=3.0, n_replicas=16, frame_interval_fs=frame_fs, criteria=[intact]
)
n_broken = int(run.verdict.unstable.sum())
print(f"{n_broken} of 16 replicas broke a bond within 3 ps")

# %% [markdown]
# ## What leaves its range first
#
# The *support* of the data is the range of each bond, angle, dihedral and contact in 950 frames that the force field
# has not seen, extended to what a much longer simulation would reach. A *departure* is the first time that a
# coordinate leaves its range and stays outside for 0.1 ps.

# %%
seen = mdsim.load_dataset("data/bundled", "aspirin_gfn2", "aspirin", "1k").train.positions.float()
departures = Departures(support_of(system, seen), 16, sustained_frames(0.1, frame_fs))
departures.follow(torch.arange(16), run.trajectory, run.verdict.first_frame)
first = Counter(name for name in departures.coordinates if name is not None)
for name, replicas in first.most_common():
    print(f"{replicas:3d}  {name}")
first_coordinate = first.most_common(1)[0][0]
n_departed = sum(first.values())
n_by_hydroxyl = sum(replicas for name, replicas in first.items() if "H13" in name)
print(f"{n_by_hydroxyl} of {n_departed} departures are coordinates of H13")

# %% [markdown]
# H13 is the hydrogen of the carboxyl group. Its angle at the oxygen folds, or it turns about the C-O bond. The broken
# bond comes later, and elsewhere:

# %%
left = departures.frames_before
both = run.verdict.unstable & (left >= 0) & (left < run.verdict.first_frame)
delay_fs = (run.verdict.first_frame - left)[both] * frame_fs
median_delay_fs = float(delay_fs.median())
print(f"from the departure to the broken bond: median {median_delay_fs:.0f} fs, longest {float(delay_fs.max()):.0f} fs")

# %% [markdown]
# ## One replica
#
# Of those that depart by this angle, the one that stays folded for longest before it breaks. The energies of the
# force field and of GFN2-xTB are both relative to their means over test frames, so that a difference between them is
# an error of the force field.

# %%
carbon, oxygen, hydrogen = 10, 9, 13
bend = torch.tensor([[carbon, oxygen, hydrogen]])
data_deg = angles_deg(seen, bend, None)


def folded_frames(index):
    """Frames between the departure and the break at which the angle is below the range of the data."""
    frames = torch.arange(int(left[index]), int(run.verdict.first_frame[index]))
    return frames[angles_deg(run.trajectory.positions[frames, index], bend, None)[:, 0] < data_deg.min()]


by_angle = [index for index, name in enumerate(departures.coordinates) if name == first_coordinate and both[index]]
replica = max(by_angle, key=lambda index: len(folded_frames(index)))
path, folded = run.trajectory.positions[:, replica], folded_frames(replica)
departure, broken = int(left[replica]), int(run.verdict.first_frame[replica])


def gfn2_eV(structures):
    calculator = TBLite(method="GFN2-xTB", verbosity=0)
    images = [Atoms(system.atomic_numbers.numpy(), p.double().numpy(), calculator=calculator) for p in structures]
    return np.array([image.get_potential_energy() for image in images])


def model_eV(structures):
    return force_field.total_energy(system, structures).detach().double().numpy()


test = data.test.positions[:20].float()
model_zero, gfn2_zero = model_eV(test).mean(), gfn2_eV(test).mean()

# %%
shown = torch.arange(max(0, departure - 60), min(len(path), broken + 20))
time_fs = (shown.numpy() - departure) * frame_fs
every = shown[::6]
bonds_A = pair_distances(path, system.bonds)
changed = int((bonds_A[broken] - data.reference_bond_lengths()).abs().argmax())
changed_bond = "-".join(
    f"{chemical_symbols[system.atomic_numbers[atom]]}{atom}" for atom in system.bonds[changed].tolist()
)
figure, panels = plt.subplots(3, 1, figsize=(6.4, 6.4), sharex=True, layout="constrained")
panels[0].plot(time_fs, angles_deg(path[shown], bend, None).numpy())
panels[0].axhspan(float(data_deg.min()), float(data_deg.max()), color="gray", alpha=0.2, label="range of the data")
panels[0].set(ylabel="angle C10-O9-H13 (°)")
panels[1].plot(time_fs, bonds_A[shown, changed].numpy())
panels[1].set(ylabel=f"bond {changed_bond} (Å)")
model_path, gfn2_path = model_eV(path[every]) - model_zero, gfn2_eV(path[every]) - gfn2_zero
panels[2].plot(time_fs[::6], model_path, label="force field")
panels[2].plot(time_fs[::6], gfn2_path, color="black", label="GFN2-xTB, the same structures")
panels[2].set(ylabel="energy (eV)", xlabel="time after the departure (fs)")
for panel in panels:
    panel.axvline(0, color="tab:red", linewidth=0.8)
    panel.axvline((broken - departure) * frame_fs, color="tab:red", linewidth=0.8, linestyle=":")
panels[0].legend()
panels[2].legend()
plt.show()

# %% [markdown]
# Solid line: departure. Dotted line: the bond is broken. The molecule is folded before it breaks. The force field
# finds the energy of the fold low, and GFN2-xTB does not.

# %%
some = path[folded[:: max(1, len(folded) // 8)]]
error_folded_eV = float(np.median(model_eV(some) - model_zero - gfn2_eV(some) + gfn2_zero))
error_test_eV = float(np.median(np.abs(model_eV(test) - model_zero - gfn2_eV(test) + gfn2_zero)))
print(f"energy, force field minus GFN2-xTB: {error_folded_eV:+.2f} eV in the fold")
print(f"on test frames: {error_test_eV:.2f} eV (median of the absolute value); kT is {mdsim.kT_eV(500.0):.3f} eV")

# %% [markdown]
# ## The energy along the coordinate
#
# Only the hydroxyl hydrogen moves: it bends about the oxygen, from a test frame.

# %%
grid_deg = np.arange(40.0, 181.0, 5.0)
start = Atoms(system.atomic_numbers.numpy(), data.test.positions[0].numpy())
bent = []
for angle in grid_deg:
    image = start.copy()
    image.set_angle(carbon, oxygen, hydrogen, angle, indices=[hydrogen])
    bent.append(torch.tensor(image.positions, dtype=torch.float32))
bent = torch.stack(bent)
model_scan, gfn2_scan = model_eV(bent) - model_zero, gfn2_eV(bent) - gfn2_zero
figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
axes.plot(grid_deg, model_scan, label="force field")
axes.plot(grid_deg, gfn2_scan, color="black", label="GFN2-xTB")
axes.axvspan(float(data_deg.min()), float(data_deg.max()), color="gray", alpha=0.2, label="range of the data")
axes.set(xlabel="angle C10-O9-H13 (°)", ylabel="energy (eV)", ylim=(-1, 4))
axes.legend()
plt.show()
outside = (grid_deg < float(data_deg.min())) | (grid_deg > float(data_deg.max()))
worst_scan_error_eV = float(np.min((model_scan - gfn2_scan)[outside]))
largest_scan_error_inside_eV = float(np.abs((model_scan - gfn2_scan)[~outside]).max())
print(f"force field minus GFN2-xTB: at most {largest_scan_error_inside_eV:.2f} eV within the range of the data")
print(f"beyond it, down to {worst_scan_error_eV:.2f} eV")

# %% [markdown]
# Within the data the two agree. Beyond them the energy should rise, and the fit does not know it: opening the angle
# costs little, and folding it leads into a hole. No test error shows this, because test frames do not go there.
# Dynamics does.
#
# ## Pictures
#
# Before the departure, folded, and broken. The three atoms of the angle are outlined, the bond that is called broken
# is red.

# %%
COLORS, SIZES = {1: "white", 6: "dimgray", 8: "tab:red"}, {1: 90, 6: 220, 8: 220}


def draw(axes, positions, title):
    """A projection onto the plane in which the carboxyl group lies."""
    centered = (positions - positions[oxygen]).double().numpy()
    plane = np.linalg.svd(np.array([centered[carbon], centered[hydrogen], centered[5]]))[2][:2]
    flat = centered @ plane.T
    for number, (i, j) in enumerate(system.bonds.tolist()):
        axes.plot(*flat[[i, j]].T, color="tab:red" if number == changed else "silver", linewidth=3, zorder=1)
    for index, number in enumerate(system.atomic_numbers.tolist()):
        edge = "tab:blue" if index in (carbon, oxygen, hydrogen) else "black"
        width = 2.0 if edge == "tab:blue" else 0.6
        axes.scatter(*flat[index], s=SIZES[number], color=COLORS[number], edgecolors=edge, linewidths=width)
    axes.set(title=title, aspect="equal")
    axes.axis("off")


figure, panels = plt.subplots(1, 3, figsize=(9.6, 3.6), layout="constrained")
middle = int(folded[len(folded) // 2])
for panel, frame in zip(panels, (max(0, departure - 20), middle, broken), strict=True):
    angle = float(angles_deg(path[frame], bend, None)[0])
    draw(panel, path[frame], f"{(frame - departure) * frame_fs:+.0f} fs, angle {angle:.0f}°")
plt.show()
angle_folded_deg = float(angles_deg(path[middle], bend, None)[0])

# %% [markdown]
# ## What follows from this
#
# - The broken bond is a late consequence. A criterion for training should judge angles too.
# - The observables of a training must see the fold: distributions of angles do, those of bond lengths do not.
# - A few labels in the fold would also help. StABlE training needs none: it compares angles with the data ([the
#   recipe](../recipe.md#cause-of-the-instability)).
#
# `mdsim stress-test` does this analysis for any force field ([stress test](../stress_test.md)).
