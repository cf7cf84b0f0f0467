"""Outputs in the formats of engines that are not on this machine, written from numbers that the test knows."""

BOHR, HARTREE = 0.529177210903, 27.211386245988
"""A, eV."""


def gaussian_log(atoms, energy, forces, cycles=9, converged=True):
    """What Gaussian prints; energy in hartree, forces in hartree/bohr."""
    bar = " " + "-" * 69 + "\n"
    text = " Entering Gaussian System, Link 0=g16\n" + " " * 26 + "Input orientation:\n" + bar
    text += " Center     Atomic      Atomic             Coordinates (Angstroms)\n"
    text += " Number     Number       Type             X           Y           Z\n" + bar
    for n, (number, (x, y, z)) in enumerate(zip(atoms.numbers, atoms.positions, strict=True), 1):
        text += f"{n:7d}{number:11d}{0:12d}{x:16.6f}{y:12.6f}{z:12.6f}\n"
    text += bar
    if not converged:
        return (
            text
            + " >>>>>>>>>> Convergence criterion not met.\n SCF Done:  E(RB3LYP) =  -1.0     A.U. after  129 cycles\n"
        )
    text += f" SCF Done:  E(RB3LYP) =  {energy:.10f}     A.U. after {cycles:4d} cycles\n" + bar
    text += " Center     Atomic                   Forces (Hartrees/Bohr)\n"
    text += " Number     Number              X              Y              Z\n" + bar
    for n, (number, (x, y, z)) in enumerate(zip(atoms.numbers, forces, strict=True), 1):
        text += f"{n:7d}{number:9d}{'':7s}{x:15.9f}{y:15.9f}{z:15.9f}\n"
    return text + bar + " Normal termination of Gaussian 16 at Tue Jan  2 03:04:05 2024.\n"


def abacus_log(atoms, energy, forces, stress, converged=True):
    """What ABACUS writes into running_scf.log; energy in eV, forces in eV/A, stress in kbar."""
    text = " ALGORITHM --------------- ION=   1  ELEC=   1 ---------------\n"
    if not converged:
        return text + " !! convergence has not been achieved @_@\n"
    text += f"\n charge density convergence is achieved\n final etot is {energy:.8f} eV\n EFERMI = 5.1 eV\n"
    bar = "-" * 90 + "\n"
    text += bar + " TOTAL-FORCE (eV/Angstrom)\n" + bar + "    atom        x        y        z\n" + bar
    seen = {}
    for symbol, (x, y, z) in zip(atoms.get_chemical_symbols(), forces, strict=True):
        seen[symbol] = seen.get(symbol, 0) + 1
        text += f"{symbol + str(seen[symbol]):>8s}{x:20.10f}{y:20.10f}{z:20.10f}\n"
    text += bar + bar + " TOTAL-STRESS (KBAR)\n" + bar
    text += "".join("".join(f"{x:20.10f}" for x in row) + "\n" for row in stress)
    return text + bar + f" --------------------------------------------\n !FINAL_ETOT_IS {energy:.8f} eV\n"
