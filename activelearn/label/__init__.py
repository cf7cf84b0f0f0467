"""First-principles labels: energies, forces and virials of picked frames."""

from typing import Final

LABELERS: Final[dict[str, str]] = {
    "abacus": "activelearn.label.abacus:Abacus",
    "ase": "activelearn.label.ase:AseLabeler",
    "cp2k": "activelearn.label.cp2k:Cp2k",
    "custom": "activelearn.label.custom:Custom",
    "gaussian": "activelearn.label.gaussian:Gaussian",
    "pwscf": "activelearn.label.pwscf:Pwscf",
    "vasp": "activelearn.label.vasp:Vasp",
}
GROUP: Final = "activelearn.labelers"
