"""Export to i-PI: a client that serves forces through a socket, and an input of path integral dynamics beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

from mdsim.boundaries import cell_of
from mdsim.errors import ConfigError
from mdsim.export.registry import Order
from mdsim.export.script import structure_of, write_script

SCRIPT = '''\
"""Forces for i-PI.

    i-pi $input &
    python $script [--address $address] [--structure FILE]

Several clients at once share the beads. A client ends when i-PI does.

$about
"""

import argparse
import time

import torch
from ase.calculators.socketio import SocketClient
from ase.io import read

from mdsim import ForceFieldCalculator

FORCE_FIELD = $force_field
STRUCTURE = $structure


def connect(address, host=None, port=None, patience_s=60.0):
    """A client, once i-PI listens: to a socket of this machine, or to a port of a host."""
    where = {"host": host, "port": port} if host else {"unixsocket": address}
    for _ in range(int(10 * patience_s)):
        try:
            return SocketClient(**where)
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"i-PI does not listen to {where}; start it first")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structure", default=STRUCTURE, help="the file with the atoms that i-PI reads")
    parser.add_argument("--address", default=$quoted, help="of ffsocket in the input, with mode='unix'")
    parser.add_argument("--host", help="with mode='inet' in the input")
    parser.add_argument("--port", type=int)
    parser.add_argument("--device", default="cpu")
    known = parser.parse_args()

    atoms = read(known.structure)
    atoms.calc = ForceFieldCalculator(**FORCE_FIELD, device=known.device, dtype=torch.float64)  # float32: faster
    connect(known.address, known.host, known.port).run(atoms, use_stress=bool(atoms.pbc.all()))


if __name__ == "__main__":
    main()
'''

INPUT = """\
<!-- Path integral molecular dynamics at constant temperature, in the file $input:

    i-pi $input &
    python $script

$about -->
<simulation verbosity='low'>
  <output prefix='$stem'>
    <properties filename='out' stride='10'>
      [step, time{picosecond}, conserved{electronvolt}, temperature{kelvin},
       potential{electronvolt}, kinetic_cv{electronvolt}]
    </properties>
    <trajectory filename='positions' stride='20' format='ase'> positions </trajectory>
  </output>
  <total_steps> 1000 </total_steps>
  <prng><seed> 1 </seed></prng>
  <ffsocket name='mdsim' mode='unix' pbc='false'>
    <address> $address </address>
    <latency> 1e-4 </latency>
  </ffsocket>
  <system>
    <initialize nbeads='4'>
      <file mode='ase' units='automatic'> $structure </file>$cell
      <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces><force forcefield='mdsim'/></forces>
    <ensemble><temperature units='kelvin'> 300 </temperature></ensemble>
    <motion mode='dynamics'>
      <dynamics mode='nvt'>
        <timestep units='femtosecond'> 0.5 </timestep>
        <thermostat mode='pile_g'><tau units='femtosecond'> 100 </tau></thermostat>
      </dynamics>
    </motion>
  </system>
</simulation>
"""
#: i-PI has a cell in any case. The calculator does not use that of open systems.
LARGE_CELL = "\n      <cell mode='abc' units='angstrom'> [100, 100, 100] </cell>"


def write(order: Order) -> list[Path]:
    """Write the client and, with the suffix .xml, the input.

    Raises:
        ConfigError: there is no structure, its boundaries are mixed, or the client would be overwritten by the input.
    """
    if order.structure is None:
        raise ConfigError("--structure is missing: the input of i-PI names the atoms to simulate")
    path = order.output.with_suffix(".xml")
    if path == order.output:
        raise ConfigError(f"{path}: this is the name of the input; name the client, as {path.stem}.py")
    structure = str(order.structure.resolve())
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]  # so that runs do not share a socket
    names = {"input": path.name, "script": order.output.name, "stem": path.stem, "address": f"mdsim_{place}"}
    cell = LARGE_CELL if cell_of(structure_of(order.structure)) is None else ""
    client = write_script(SCRIPT, order, **names, structure=json.dumps(structure), quoted=json.dumps(names["address"]))
    names["structure"] = escape(structure)
    return [client, write_script(INPUT, replace(order, output=path), **names, cell=cell)]
