# %% [markdown]
# # Stabilize your model
#
# From a file of frames to a force field that lasts longer: `mdsim init`, a fit, StABlE training, and a comparison.
# Everything is cut down to one or two minutes on one core, so that the numbers show the steps and not what the method
# can do. [The tutorial](../tutorial.md) has the same with full budgets.

# %%
import os
import shlex
from pathlib import Path

import ase.io
from ase import Atoms
from IPython.display import Image

import mdsim
from mdsim.cli.main import main


def run(command):
    """The command line `mdsim ...`, without a new process."""
    status = main(shlex.split(command)[1:])
    assert status == 0, f"{command} ended with status {status}"


# %% [markdown]
# ## A file of frames
#
# Any file that ASE reads, with energies and forces, is a start. Here it is written from the bundled set: 320 frames
# of aspirin at 500 K. What the next cells write goes to the folder `my_model`.

# %%
frames = mdsim.load_dataset("data/bundled", "aspirin_gfn2", "aspirin", "1k").train[:320]
images = []
for positions, energy, forces in zip(frames.positions, frames.energy, frames.labels, strict=True):
    image = Atoms(frames.atomic_numbers.numpy(), positions.numpy())
    image.info["energy"], image.arrays["forces"] = float(energy), forces.numpy()
    images.append(image)
Path("my_model").mkdir(exist_ok=True)
os.chdir("my_model")
ase.io.write("aspirin.extxyz", images, format="extxyz")

# %% [markdown]
# ## Configurations
#
# `mdsim init` converts the file, looks at the data, and writes four short configurations with the reason for each
# value. The file does not say at which temperature its frames are, so a flag does.

# %%
run("mdsim init --data aspirin.extxyz --model schnet --temperature-K 500 --cpu")

# %%
print(Path("configs/aspirin/aspirin_100percent_schnet/common.yml").read_text())

# %% [markdown]
# ## A tiny fit
#
# Twenty-four passes over the training frames. A real fit goes on until it stops by itself, in a quarter of an hour.

# %%
run(
    "mdsim pretrain --config-yml configs/aspirin/aspirin_100percent_schnet/pretrain.yml --optim.max_epochs=24"
    " --print-every 2000"
)

# %% [markdown]
# ## How long does it last?
#
# The evaluation is the one of the configuration, for 3 ps instead of 20 ps.

# %%
run("mdsim simulate --config-yml configs/aspirin/aspirin_100percent_schnet/simulate.yml --eval_model pre --epochs=6")

# %% [markdown]
# ## StABlE training
#
# A seventh of the budget of the configuration. The training explores until replicas break, reruns the stretches in
# which they broke until these hold, and explores again.

# %%
run(
    "mdsim train --config-yml configs/aspirin/aspirin_100percent_schnet/train.yml --max_force_evaluations=90000"
    " --estimator.minibatch_size=250"
)

# %% [markdown]
# Its course: the replicas that broke while exploring, and the reruns that break again while learning.

# %%
Image(filename="runs/aspirin/schnet_aspirin_100percent/phases.png")

# %% [markdown]
# ## Before and after
#
# The same held-out starts, velocities and noise:

# %%
run("mdsim simulate --config-yml configs/aspirin/aspirin_100percent_schnet/simulate.yml --eval_model post --epochs=6")
run("mdsim compare runs/aspirin/schnet_aspirin_100percent")

# %%
inference = Path("runs/aspirin/schnet_aspirin_100percent/inference")
Image(filename=str(inference / "survival.png"))

# %%
Image(filename=str(inference / "adf.png"))

# %% [markdown]
# ## What this run shows, and what it does not
#
# - The mean stable time grows without a single new label. Its intervals, over 24 replicas, say how sure this is.
# - The force error grows, by more than in a full training. The fit saw each frame 24 times, and the first steps from
#   a poor fit are the largest.
# - Replicas that are stable to the end hide how long they would last. The horizon of 3 ps is too short for the
#   trained model.
# - The training ended by its budget in its first cycle. With the budget of the configuration it goes on.
# - One seed settles no comparison. [Choosing](../choosing.md) has measured runs with three seeds, longer horizons and
#   controls.

# %%
pre, post = (mdsim.read_results(inference / kind).summaries[0] for kind in ("pre", "post"))
mean_before_ps, mean_after_ps = pre["stable_time_mean_ps"], post["stable_time_mean_ps"]
force_mae_before, force_mae_after = pre["force_mae_meV_per_A"], post["force_mae_meV_per_A"]
print(f"mean stable time {mean_before_ps:.2f} → {mean_after_ps:.2f} ps")
print(f"force MAE {force_mae_before:.0f} → {force_mae_after:.0f} meV/Å")

# %% [markdown]
# Each command also left a report with a 3D replay of the breaks: `inference/report.html` and `report.html` of the run
# ([reports](../reports.md)).
