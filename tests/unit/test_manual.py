"""The manual: a complete reference of keys, intact formulas in docstrings, and a build without warnings."""

import os
import re
import subprocess
import sys

import pytest
from paths import ROOT

pytest.importorskip("sphinx")

sys.path.insert(0, str(ROOT / "docs" / "_ext"))

from config_reference import anchor, kind, reference, sections_in
from docstrings import as_rst
from mathml import tex2mathml
from modules import PLACE, expanded

from mdsim.config import schema

SECTIONS = {name: cls for name in schema.__all__ if hasattr(cls := getattr(schema, name), "model_fields")}
MODELS = [*schema.MODEL_CONFIGS.values(), *schema.MODEL_REFERENCES.values()]
SECTIONS |= {section.__name__: section for section in MODELS}
ABSTRACT = {"Section", "CustomConfig", "RunConfig", "ArchitectureConfig", "PretrainedReference"}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_is_described(name):
    assert SECTIONS[name].__doc__
    for key, field in SECTIONS[name].model_fields.items():
        assert field.description, f"{name}.{key} has no description"
        assert field.description.endswith("."), f"{name}.{key}: a description ends with a full stop"
        assert kind(key, field)


def test_the_page_has_every_section_and_every_key():
    page = reference((ROOT / "docs" / "configuration.md").read_text(encoding="utf-8"), set())
    assert "<!-- config-reference" not in page
    for name, section in SECTIONS.items():
        if name in ABSTRACT:
            continue
        assert f"({anchor(section)})=" in page, f"{name} is missing"
        for key in section.model_fields:
            assert f"* - `{key}`" in page
        for field in section.model_fields.values():
            for below in sections_in(field.annotation):
                assert page.count(f"({anchor(below)})=") == 1


@pytest.mark.parametrize(
    ("section", "key", "words"),
    [
        ("DynamicsConfig", "temperature_K", "number > 0, K"),
        ("DynamicsConfig", "replicas", "integer ≥ 1"),
        ("LangevinConfig", "friction_per_ps", "number > 0, 1/ps"),
        ("StructureFactorConfig", "max_q_per_A", "number > 0, 1/Å"),
        ("VibrationalDOSConfig", "bin_width_per_cm", "number > 0, 1/cm"),
        ("EnthalpyOfVaporizationConfig", "reference_kJ_per_mol", "number or `null`, kJ/mol"),
        ("AngleDeviationConfig", "angle_dev_tol_deg", "number > 0, °"),
        ("TrainConfig", "stop_confidence", "number > 0, < 1 or `null`"),
        ("NoseHooverConfig", "suzuki_yoshida_order", "`1`, `3`, `5`, `7`"),
        ("RDFConfig", "pair", "list of 2 (text) or `null`"),
        ("SimulateConfig", "save_trajectories", "list of integer"),
        ("CustomModelConfig", "factory", "package.module:function"),
        ("EstimatorConfig", "local", "[section](#config-localestimatorconfig) or `null`"),
    ],
)
def test_values_are_told_in_words(section, key, words):
    assert kind(key, SECTIONS[section].model_fields[key]) == words


def test_formulas_and_tables_of_docstrings_keep_their_lines():
    text = [
        "A line with |x| and `|y|`.",
        "",
        "    v = v + dt F/m",
        "    x = x + dt v",
        "",
        "| symbol | variable |",
        "|--------|----------|",
        "| x      | `here`   |",
        "",
        "Args:",
        "    x: Å.",
        "",
        "        more of it",
    ]
    written = as_rst(text)
    assert written[0] == r"A line with \|x\| and `|y|`."
    formula = written.index("    v = v + dt F/m")
    assert written[formula - 2 : formula + 2] == ["::", "", "    v = v + dt F/m", "    x = x + dt v"]
    table = written.index(".. list-table::")
    assert written[table + 3 : table + 7] == ["   * - symbol", "     - variable", "   * - x", "     - `here`"]
    assert written[-4:] == ["Args:", "    x: Å.", "", "        more of it"]


MESSAGES = re.findall(r"^\*\*`(.+)`\*\*$", (ROOT / "docs" / "faq.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("message", MESSAGES)
def test_the_messages_of_the_troubleshooting_page_are_those_of_the_program(message):
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "mdsim").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)  # literals that stand on several lines
    fixed = re.split(
        r"\.\.\.|'[^']*'|\[[^\]]*\]|\d+|\w+/\w+|\w+:\w+", message
    )  # without what differs from case to case
    assert max((part.strip(" :()") for part in fixed), key=len) in joined


def test_every_module_is_in_the_api_reference():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    documented = {module for names in PLACE.findall(pages) for module in expanded(names)}
    paths = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "mdsim").rglob("*.py")]
    modules = {".".join(path.parts) for path in paths if not path.name.startswith("_")}
    missing = {
        name for name in modules - documented if not name.startswith("mdsim.config.schema.")
    }  # documented in a separate reference
    assert not missing, f"name these in a page of docs/api: {sorted(missing)}"
    assert documented <= modules


LINK = re.compile(r"\]\(([^)\s]+)\)")
TOCTREE = re.compile(r"```\{toctree\}(.*?)```", re.DOTALL)
WEB = re.compile(r"https?://[\w.-]+\.[a-z]{2,}(:\d+)?(/[\w./%~+=&?:@-]*(#[\w.-]+)?)?")


def _texts() -> dict[str, str]:
    """The pages of the manual by name without suffix."""
    docs = ROOT / "docs"
    files = [*docs.rglob("*.md"), *(docs / "notebooks").glob("*.py")]
    return {str(path.relative_to(docs).with_suffix("")): path.read_text(encoding="utf-8") for path in files}


def _linked(page: str, text: str) -> set[str]:
    """The pages that a page links to or lists."""
    folder = (ROOT / "docs" / page).parent
    listed = [line.split("<")[-1].rstrip(">") for block in TOCTREE.findall(text) for line in block.splitlines()]
    names = [target.partition("#")[0] for target in LINK.findall(text)] + listed
    paths = [(folder / name).resolve() for name in names if name and "://" not in name and not name.startswith(":")]
    return {
        str(path.relative_to(ROOT / "docs").with_suffix("")) for path in paths if path.is_relative_to(ROOT / "docs")
    }


def test_every_page_is_at_most_two_clicks_away():
    texts = _texts()
    once = _linked("index", texts["index"]) & texts.keys()
    twice = {name for page in once for name in _linked(page, texts[page])}
    assert not texts.keys() - {"index"} - once - twice


def test_the_entrance_begins_with_what_a_reader_wants_to_do():
    text = _texts()["index"]
    assert text.index("## What do you want to do?") < text.index("```{toctree}")
    for page in ("quickstart", "stress_test", "tutorial", "choosing", "gallery", "glossary", "faq", "extend/index"):
        assert page in _linked("index", text.partition("```{toctree}")[0]), page


def test_links_to_the_web_are_well_formed():
    links = [link for text in _texts().values() for link in LINK.findall(text) if "://" in link]
    assert len(links) >= 3
    assert [link for link in links if not WEB.fullmatch(link)] == []


def test_every_page_of_the_api_reference_has_an_example():
    pages = set((ROOT / "docs" / "api").glob("*.md")) - {ROOT / "docs" / "api" / "index.md"}
    without = [page.name for page in pages if "```python" not in page.read_text(encoding="utf-8")]
    assert not without, "they are run by tests/integration/test_documented_commands.py"


def test_examples_in_docstrings_are_code():
    text = ["Examples:", "    python a.py \\", "        --flag", "", "Sizes are shared."]
    assert as_rst(text) == ["Examples::", "", "    python a.py \\", "        --flag", "", "", "Sizes are shared."]


def test_equations_become_mathml():
    assert tex2mathml(r"\frac{a}{b}", as_block=True).startswith("<math")


@pytest.mark.slow
def test_the_manual_builds_without_warnings(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", str(tmp_path)]
    built = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert built.returncode == 0, built.stderr
    assert "<math" in (tmp_path / "method.html").read_text(encoding="utf-8")
    assert "StochasticVelocityRescaling" in (tmp_path / "extend" / "integrator.html").read_text(encoding="utf-8")
