"""`mdsim export`: a force field for other engines."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from mdsim.cli import shared
from mdsim.export.registry import EXPORTERS, Order, export

log = logging.getLogger("mdsim")

DESCRIPTION = """Write what another engine needs to run a force field.

engines:
{engines}

Scripts name their own command line, and list it with --help. They load the checkpoint from its present place.
"""


def export_parser() -> argparse.ArgumentParser:
    """The arguments of `mdsim export`."""
    engines = "\n".join(f"  {name:<10} {exporter.description}" for name, exporter in EXPORTERS.items())
    parser = argparse.ArgumentParser(
        prog="mdsim export",
        description=DESCRIPTION.format(engines=engines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint of mdsim, or published with the StABlE paper"
    )
    parser.add_argument("--to", choices=list(EXPORTERS), required=True, help="the engine")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the file to write")
    parser.add_argument(
        "--structure",
        type=Path,
        help="the atoms to simulate, any file that ASE reads: for ipi, and for metatomic "
        "with a repulsion that depends on bonds",
    )
    parser.add_argument("--allow-factory", metavar="MODULE:FUNCTION", help="factory of a custom model")
    parser.add_argument(
        "--energy-zero",
        default="labels",
        metavar="labels|estimated|relative",
        help="zero of energy of systems whose total energies the training data do not determine",
    )
    return parser


def export_command(arguments: Sequence[str] | None = None) -> int:
    """`mdsim export`."""
    known = export_parser().parse_args(arguments)
    return shared.run(lambda: _export(known))


def _export(known: argparse.Namespace) -> None:
    from mdsim.assembly.run_folder import check_output_file

    check_output_file(known.output)
    order = Order(known.checkpoint, known.output, known.allow_factory, known.energy_zero, known.structure)
    for path in export(known.to, order):
        log.info("%s -> %s", known.checkpoint, path)
