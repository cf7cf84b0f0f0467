"""First-principles labels: energies, forces and virials of picked frames."""

from typing import Final

LABELERS: Final[dict[str, str]] = {
    "ase": "activelearn.label.ase:AseLabeler",
    "pwscf": "activelearn.label.pwscf:Pwscf",
    "vasp": "activelearn.label.vasp:Vasp",
}
GROUP: Final = "activelearn.labelers"
