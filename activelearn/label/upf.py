"""UPF pseudopotentials of Quantum ESPRESSO."""

from __future__ import annotations

import re
from pathlib import Path


def element(file: Path) -> str | None:
    """Return the element a UPF file says it is for (form 2: an attribute; form 1: a line of the header)."""
    text = file.read_text(errors="replace")
    match = re.search(r'\belement\s*=\s*"\s*([A-Z][a-z]?)\s*"', text, flags=re.IGNORECASE)
    if match:
        return match.group(1).capitalize()
    match = re.search(r"^\s*([A-Z][a-z]?)\s+Element\s*$", text, flags=re.MULTILINE)
    return match.group(1) if match else None
