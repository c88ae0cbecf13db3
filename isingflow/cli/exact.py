"""`isingflow exact`: ln Z, energy and heat capacity of a finite lattice, and its continuous free energy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isingflow.cli.lattices import MAGNETS, betas_from, lattice_from, size_option
from isingflow.cli.options import JSON, Command, Place, Size, check_new_file
from isingflow.cli.output import print_result, show_notes
from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.runtime import stopping

if TYPE_CHECKING:
    from isingflow.lattice import Lattice

LONGEST, LONGEST_CHAIN = 10**6, 10**9


@click.command("exact", cls=Command)
@size_option(Size(length=LONGEST, chain=LONGEST_CHAIN))
@MAGNETS
@click.option("--ground-state", is_flag=True, help="The least energy and a state that has it, instead.")
@click.option("--output", type=Place(), metavar="FILE.csv", help="A new file for the table of a range of temperatures.")
@JSON
def command(
    size: tuple[int, ...] | None, ground_state: bool, output: Path | None, as_json: bool, **magnet: Any
) -> None:
    """The exact answer on a finite lattice, where one is known.

    Uniform periodic square lattices of any size up to 10^6 x 10^6, other square ones (open, glasses) up to about
    256 x 256, by Pfaffians where they are not narrow, periodic triangular ones up to 4096 x 4096, chains up to 10^9
    sites, planar graphs up to 10,000, open triangular lattices among them, and any graph that a narrow front can sweep:
    cubes up to 4x4x4, slabs, sparse random graphs, in external fields too. The offset and free energy of the continuous
    representation need the couplings' spectrum: they are null beyond 2^20 sites (2048 without translation invariance).

    With --ground-state: the least energy, of small and of planar lattices exactly; of others the least that parallel
    tempering has seen, which is said.
    """
    if ground_state:
        if output is not None:
            raise InvalidInput("--output does not go with --ground-state: leave it out")
        _ground_state(lattice_from(size, magnet), magnet, as_json)
        return
    if output is not None:
        check_new_file(output, (".csv",))
    show_notes(as_json)
    lattice = lattice_from(size, magnet)
    betas = betas_from(magnet, lattice)
    shape = _shape(lattice)
    if len(betas) == 1 and output is None:
        document = shape | _answer(lattice, betas[0])
        print_result(document, as_json, lambda: _table(lattice, betas[0], document))
        return
    rows = [_answer(lattice, beta) for beta in sorted(betas)]
    print_result(shape | {"beta": [row["beta"] for row in rows], "rows": rows}, as_json, lambda: _curve(lattice, rows))
    if output is not None:
        from isingflow.evaluation.tables import write_table

        write_table(output, rows)


def _shape(lattice: Lattice) -> dict[str, Any]:
    """The part of the document that does not depend on the temperature."""
    from isingflow.lattice import external

    jx, jy = (j if isinstance(j, float) else None for j in (lattice.jx, lattice.jy))
    return {
        "lattice": lattice.kind,
        "size": list(lattice.size),
        "sites": lattice.sites,
        "jx": jx,
        "jy": jy,
        "j": None if lattice.j is None else [j if isinstance(j, float) else None for j in lattice.j],
        "boundary": lattice.boundary,
        **external.entry(lattice.field),
    }


def _answer(lattice: Lattice, beta: float) -> dict[str, Any]:
    """The part that does."""
    from isingflow.exact import thermodynamics
    from isingflow.exact.continuous import CONTINUOUS_SITES, continuous_form

    result = stopping.watched(thermodynamics, lattice, beta)
    small = lattice.sites <= CONTINUOUS_SITES[lattice.translation_invariant]
    form = stopping.watched(continuous_form, lattice, beta) if small else None
    offset, free_energy = (None, None) if form is None else (form.offset, form.free_energy(result.log_z))
    return {
        "beta": beta,
        "method": result.method,
        "log_z": result.log_z,
        "log_z_per_site": result.log_z_per_site,
        "free_energy_ising_per_site": -result.log_z_per_site / beta if beta else None,
        "energy_per_site": result.energy_per_site,
        "heat_capacity_per_site": result.heat_capacity_per_site,
        **({} if lattice.field is None else {"magnetisation_per_site": result.magnetisation_per_site}),
        "offset": offset,
        "continuous_free_energy": free_energy,
        "continuous_free_energy_per_site": None if free_energy is None else free_energy / lattice.sites,
    }


def _curve(lattice: Lattice, rows: list[dict[str, Any]]) -> str:
    """A range of temperatures, one a line."""
    names = ("log_z", "log_z_per_site", "energy_per_site", "heat_capacity_per_site")
    lines = [f"Ising, {lattice}", f"{'beta':>12}" + "".join(f"{name.replace('_', ' '):>24}" for name in names)]
    for row in rows:
        lines.append(f"{row['beta']:>12.6g}" + "".join(f"{row[name]:>24.12g}" for name in names))
    return "\n".join(lines)


def _table(lattice: Lattice, beta: float, document: dict[str, Any]) -> str:
    from isingflow.lattice import heading

    title = heading(lattice, beta)
    sites, free = document["sites"], document["free_energy_ising_per_site"]
    rows = [
        (f"ln Z ({document['method']})", document["log_z"], document["log_z_per_site"]),
        *([("free energy -T ln Z", free * sites, free)] if free is not None else []),
        ("energy", document["energy_per_site"] * sites, document["energy_per_site"]),
        ("heat capacity", document["heat_capacity_per_site"] * sites, document["heat_capacity_per_site"]),
    ]
    if document.get("magnetisation_per_site") is not None:
        value = document["magnetisation_per_site"]
        rows.append(("magnetisation", value * sites, value))
    notes = []
    if document["offset"] is None:
        notes.append(f"  -ln Z continuous: not computed for {sites} sites")
    else:
        name = f"-ln Z continuous (offset {document['offset']:.6g})"
        rows.append((name, document["continuous_free_energy"], document["continuous_free_energy_per_site"]))
    lines = [f"{title:<60}{'total':>20}{'per site':>20}"]
    return "\n".join(lines + [f"  {name:<58}{total:>20.12g}{value:>20.12g}" for name, total, value in rows] + notes)


def _ground_state(lattice: Lattice, magnet: dict[str, Any], as_json: bool) -> None:
    """Print the ground state of a lattice, or the best state that is known."""
    for name in ("critical", "beta", "temperature"):
        if magnet[name]:
            raise InvalidInput(f"--{name} does not go with --ground-state, which has no temperature: leave it out")
    from isingflow.exact import ground_state

    try:
        found = stopping.watched(ground_state, lattice)
    except NoExactSolution:
        from isingflow.monte_carlo import lowest_energy

        found = stopping.watched(lowest_energy, lattice)
    document = {
        "lattice": lattice.kind,
        "size": list(lattice.size),
        "sites": lattice.sites,
        "method": found.method,
        "exact": found.exact,
        "ground_state_energy": found.energy,
        "ground_state_energy_per_site": found.energy_per_site,
        "spins": found.spins.tolist(),
    }
    word = "ground-state energy" if found.exact else "least energy seen, no proof that there is none lower"
    line = f"  {f'{word} ({found.method})':<70}{found.energy:>18.12g}{found.energy_per_site:>18.12g}"
    print_result(document, as_json, lambda: f"{f'Ising, {lattice}':<72}{'total':>18}{'per site':>18}\n{line}")
