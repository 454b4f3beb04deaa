"""Damaged configurations: text that is no YAML, YAML that is no configuration, and overrides of all kinds."""

import random
from functools import partial

import pytest
import yaml
from mutations import ODD, Outcomes, restructured, tries
from tiny import pretrain_values, simulate_values, train_values

from mdsim.config.loading import load_config
from mdsim.config.schema import PretrainConfig, SimulateConfig, TrainConfig

KINDS = {
    "pretrain": (pretrain_values, PretrainConfig),
    "train": (train_values, {"train": TrainConfig, "simulate": SimulateConfig}),
    "simulate": (simulate_values, {"train": TrainConfig, "simulate": SimulateConfig}),
}
PIECES = [
    *(
        "[",
        "]",
        "{",
        "}",
        ":",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "\t",
        "#",
        "'",
        '"',
        "|",
        ">",
        "?",
        "%",
        "@",
        "`",
        "!",
        "&a ",
        "*a",
    ),
    *("!!int ", "!!float ", "!!bool ", "!!binary ", "!!timestamp ", "!!set ", "!!omap ", "!!map ", "!!python/name:os "),
    *(
        "null",
        "~",
        "yes",
        ".nan",
        ".inf",
        "1e999",
        "0x",
        "0b_",
        "1:99:99",
        "2001-99-99",
        "9" * 30,
        "9" * 5000,
        "-1",
        "1_0",
    ),
    *("\x00", "\x07", "\ufeff", "\ud800", "é", "🙂", "x" * 3000, "<<: ", "---\n", "...\n", "[" * 400, "{a: " * 60),
    *("includes: [m.yml]\n", "includes: ['']\n", "includes: ['\\0']\n", "includes: [recipe:x]\n", "includes: [/]\n"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_changed_text_is_read_or_refused_in_one_line_for_each_problem(tmp_path, kind):
    values, schemas = KINDS[kind]
    text, path, outcomes = yaml.safe_dump(values(tmp_path)), tmp_path / "m.yml", Outcomes()
    for number, rng in enumerate(tries(150)):
        path.write_bytes(_edited(text, rng).encode("utf-8", "surrogatepass"))
        outcomes.of(lambda: load_config(path, schemas), f"text {number}")
    print(outcomes.counts)
    assert outcomes.counts["refused"] > outcomes.counts["accepted"]


def _edited(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(text))
        end = min(len(text), place + rng.choice([0, 0, 1, 5, 40]))
        text = text[:place] + rng.choice(["", *PIECES]) + text[end:]
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_other_values_are_read_or_refused(tmp_path, kind):
    values, schemas = KINDS[kind]
    path, outcomes = tmp_path / "m.yml", Outcomes()
    for rng in tries(150):
        changed, how = restructured(values(tmp_path), rng)
        path.write_text(yaml.safe_dump(changed, allow_unicode=True), encoding="utf-8")
        outcomes.of(lambda: load_config(path, schemas), how)
    print(outcomes.counts)


def test_other_overrides_are_read_or_refused(tmp_path):
    values, schemas = KINDS["train"]
    (tmp_path / "m.yml").write_text(yaml.safe_dump(values(tmp_path)))
    keys = [
        "seed",
        "exp_name",
        "dynamics",
        "replicas",
        "stability",
        "0",
        "-1",
        "bond_length_deviation",
        "name",
        "",
        "é",
    ]
    outcomes = Outcomes()
    for rng in tries(300):
        key = ".".join(rng.choice(keys) for _ in range(rng.randint(1, 4)))
        value = rng.choice([*PIECES, *map(str, ODD), "{name: langevin}", "[]"])
        override = f"--{key}={value}" if rng.random() < 0.9 else f"--{key}"
        outcomes.of(partial(load_config, tmp_path / "m.yml", schemas, [override]), override[:80])
    print(outcomes.counts)
