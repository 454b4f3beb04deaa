"""Contents of the four configuration files: pretraining, shared settings, StABlE training and evaluation."""

from __future__ import annotations

from mdsim.config.schema import OptimizationConfig
from mdsim.models.record import Chosen, ModelRecord
from mdsim.suggest.choices import (
    GPU_FACTOR,
    MEDIUM,
    File,
    Machine,
    Section,
    criteria,
    cutoff_A,
    dihedrals,
    evaluations,
    rdfs,
    replicas,
    targets,
    timestep_fs,
)
from mdsim.suggest.dynamical import dense_window, dump_every_steps
from mdsim.suggest.findings import Findings

PAIRS_PER_BATCH = 20_000  # at most; several frames of a liquid have as many pairs as a hundred of a molecule
STEPS_PER_EPOCH = 4  # of the fit, at least, so that small data sets are not a single batch
FEWEST_STRUCTURES, MOST_STRUCTURES = 60, 240  # of the reference, in a gradient of the contrast term
REPORT_SECONDS, FEWEST_TEST_FRAMES = 120, 50  # of each split, after the fit
PRETRAINING_DIR = "qm_pretrained_checkpoints"


def pretraining(found: Findings, model: ModelRecord, machine: Machine, file: File | None = None) -> Section:
    """The energy/force fit, which starts from the weights in a file if there is one."""
    start = _model(found, model, machine) if file is None else {"name": Chosen(model.name), **file.section}
    return {
        "mode": Chosen("train"),
        "data": _data(found, simulated=False),
        "model": start,
        "optim": _optim(found, model, machine),
        "run_dir": Chosen(PRETRAINING_DIR),
        "seed": Chosen(0),
        "print_every": Chosen(200 if found.pairs_within(5.0) <= MEDIUM else 50),
    }


def common(found: Findings, model: ModelRecord, exp_name: str, file: File | None = None) -> Section:
    """Settings shared by training and evaluation."""
    start = _variant(model) if file is None else file.section
    step = timestep_fs(found)
    dump = dump_every_steps(found, step.value)
    chosen: Section = {
        "seed": Chosen(123),
        "data": _data(found),
        "model": {"name": Chosen(model.name), **start},
        "model_dir": Chosen(PRETRAINING_DIR, "where pretraining left the force field"),
        "log_dir": Chosen("runs"),
        "results_dir": Chosen(found.place.name),
        "exp_name": Chosen(exp_name),
        **_reference(found),
        "dynamics": {
            "temperature_K": Chosen(found.temperature.value_K, found.temperature.source),
            "timestep_fs": step,
            "steps_per_epoch": Chosen(_steps_per_epoch(step.value), "one stretch: 0.5 ps"),
            "dump_every_steps": Chosen(dump, f"stability is resolved to {dump * step.value:g} fs"),
        },
        "stability": criteria(found, training=False),
    }
    return chosen


def training(found: Findings, model: ModelRecord, machine: Machine) -> Section:
    """StABlE training, on top of `common.yml` and the recipe."""
    pairs = _pairs(found, model, machine)
    step = timestep_fs(found).value
    number = replicas(found, machine, pairs, training=True)
    batch = min(found.n_train, 4 if pairs > MEDIUM else model.start.frames_per_gradient)
    estimator: Section = {
        "minibatch_size": Chosen(batch, "structures per backward pass; bounds the memory, not the result")
    }
    if found.is_liquid:
        local = {
            "n_molecules": 1,
            "per_frame": min(64, found.system.n_molecules),
            "n_strata": 100,
            "max_per_stratum": 40,
        }
        why = f"{found.system.n_molecules} molecules in a periodic cell: samples are molecules"
        estimator["local"] = Chosen(local, why)
    terms: Section = {
        "observables": {"targets": targets(found)},
        "energies_forces": {"batch_size": Chosen(batch, f"labeled frames per gradient, of {found.n_train}")},
    }
    if not found.is_liquid:
        drawn = max(FEWEST_STRUCTURES, min(MOST_STRUCTURES, 6 * batch))
        terms["contrast"] = {"structures_per_gradient": Chosen(drawn, "reference structures, and as many simulated")}
    return {
        "dynamics": {
            "replicas": number,
            "dump_every_steps": Chosen(round(50 / step), "frames for the estimator, less often than in the evaluation"),
        },
        "max_force_evaluations": evaluations(model, machine, pairs),
        "stability": criteria(found, training=True),
        "terms": terms,
        "estimator": estimator,
        "learning": {
            "reruns": Chosen(number.value, "of the parked stretches, each with its own noise: one for each replica"),
            **({} if model.start.learning_rate is None else {"learning_rate": model.start.learning_rate}),
        },
    }


def simulation(found: Findings, model: ModelRecord, machine: Machine) -> Section:
    """Held-out evaluation, on top of `common.yml`."""
    pairs = _pairs(found, model, machine)
    step = timestep_fs(found).value
    number = replicas(found, machine, pairs, training=False)
    per_epoch = number.value * _steps_per_epoch(step)
    epochs = max(10, min(40, round(evaluations(model, machine, pairs).value / per_epoch)))
    structural = rdfs(found)
    if found.angles is not None:
        structural.append(Chosen({"name": "adf", "bin_width_deg": 2.0}, f"{len(found.triplets)} angles between bonds"))
    structural += dihedrals(found)
    return {
        "mode": Chosen("simulate"),
        "eval_model": Chosen("post", "or pre: before StABlE training"),
        "dynamics": {
            "replicas": number,
            "integrator": Chosen({"name": "langevin", "friction_per_ps": 0.1}, "weak: close to Newton's equations"),
        },
        "epochs": Chosen(epochs, f"{epochs * _steps_per_epoch(step) * step / 1000:g} ps; --epochs=N for longer"),
        "end_when_unstable": Chosen(1.0, "go on until every replica broke"),
        "observables": structural,
        **dense_window(found, step, epochs, _steps_per_epoch(step)),
        "frames_before_break": Chosen(20),
    }


def _pairs(found: Findings, model: ModelRecord, machine: Machine) -> int:
    return found.pairs_within(cutoff_A(found, model, machine).value)


def _steps_per_epoch(step_fs: float) -> int:
    return round(500 / step_fs)


def _data(found: Findings, simulated: bool = True) -> Section:
    """The data set: all labeled frames, or the composition to simulate."""
    place, of_several = found.place, found.mixed is not None
    n_simulated = len(found.dataset.train)
    chosen = {"composition": Chosen(found.composition, f"simulated: {n_simulated} training frames of this one")}
    return {
        "path": Chosen(place.root, "" if place.root.startswith("/") else "relative to where the commands are run"),
        "name": Chosen(place.name),
        "molecule": Chosen(place.molecule),
        "size": Chosen(place.size, f"{found.n_train} training frames{' of all compositions' * of_several}"),
        **(chosen if of_several and simulated else {}),
    }


def _model(found: Findings, model: ModelRecord, machine: Machine) -> Section:
    sizes = dict(model.start.sizes)
    if not machine.gpu:
        sizes |= model.start.sizes_on_cpu
        sizes |= model.start.sizes_of_liquid_on_cpu if found.is_liquid else {}
    return {"name": Chosen(model.name), **sizes, "cutoff_A": cutoff_A(found, model, machine)}


def _variant(model: ModelRecord) -> Section:
    """The setting that distinguishes the fit from others to the same data. Runs must name it as well."""
    if model.variant is None:
        return {}
    name = model.variant.setting
    chosen = model.start.sizes.get(name, Chosen(model.settings[name].default))
    return {name: Chosen(chosen.value)}


def _optim(found: Findings, model: ModelRecord, machine: Machine) -> Section:
    pairs = found.labeled_pairs_within(cutoff_A(found, model, machine).value)
    most, within = model.start.most_frames_per_batch, round(PAIRS_PER_BATCH / max(1, pairs))
    batch = max(1, min(most, within, found.n_train // STEPS_PER_EPOCH))
    steps = -(-found.n_train // batch)
    every = max(1, round(8 / steps))
    return {
        **model.start.fit,
        "batch_size": Chosen(batch, f"a frame has {pairs} pairs within the cutoff; {steps} steps per epoch"),
        "eval_batch_size": Chosen(max(4, min(100, within))),
        **_max_test_frames(model, machine, pairs),
        "warmup_steps": Chosen(model.start.warmup_steps),
        "plateau_patience": Chosen(20 if pairs <= MEDIUM else 5, "evaluations without progress, then a lower rate"),
        "ema_decay": Chosen(0.99, "averaged weights are evaluated and saved, because frames are few"),
        "early_stopping_lr": Chosen(2.0e-5),
        "early_stopping_time_s": Chosen(900 if pairs <= MEDIUM else 1800, "the fit ends after this time"),
        "evaluate_every_epochs": Chosen(every),
        "checkpoint_every_epochs": Chosen(10 * every if pairs <= MEDIUM else 1),
    }


def _max_test_frames(model: ModelRecord, machine: Machine, pairs: int) -> Section:
    """Frames of each split in the errors after the fit: fewer than by default for costly models."""
    per_second = model.start.pairs_per_second * (GPU_FACTOR if machine.gpu else 1)
    affordable = max(FEWEST_TEST_FRAMES, round(REPORT_SECONDS * per_second / max(1, pairs)))
    default = OptimizationConfig().max_test_frames
    if default is not None and affordable >= default:
        return {}
    return {"max_test_frames": Chosen(affordable, f"of each split, in the errors after the fit: {REPORT_SECONDS} s")}


def _reference(found: Findings) -> Section:
    place, reference = found.place, found.reference
    size = reference.folder.name
    why = f"reference observables: structures of {len(reference.train)} frames"
    why += "" if size == place.size else ", whose labels are not used"
    chosen: Section = {"reference_size": Chosen(size, why)}
    if found.has_reference_run:
        chosen["reference_run"] = Chosen(True, "reference.npz has observables of the whole run")
    return chosen
