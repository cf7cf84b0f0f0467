"""One labelled system in DeePMD's form: a folder of NumPy arrays, or a group of an HDF5 file that is laid out alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

VIRTUAL = -1
"""Type of an atom that is not there (mixed type data are padded to one number of atoms)."""


@dataclass(frozen=True)
class LabelledSystem:
    """Frames of one composition or, in mixed type data, of one number of atoms."""

    path: Path
    """The folder, or the HDF5 file."""
    group: str = ""
    """Group of the HDF5 file, starting with "/"; empty: `path` is a folder."""

    def __str__(self) -> str:
        return f"{self.path}#{self.group}" if self.group else str(self.path)

    @property
    def natoms(self) -> int:
        """Number of atoms, N."""
        return len(self.types())

    @property
    def nframes(self) -> int:
        """Number of frames, F (from the headers alone)."""
        return sum(self.length(part) for part in self.sets)

    @property
    def sets(self) -> list[str]:
        """The names of the sets that hold the arrays."""
        if not self.group:
            return sorted(part.name for part in self.path.glob("set.*"))
        with h5py.File(self.path) as file:
            return sorted(name for name in file[self.group] if name.startswith("set."))

    @property
    def mixed(self) -> bool:
        """Whether each frame has its own elements (deepmd/npy/mixed)."""
        return any(self.has(f"{part}/real_atom_types.npy") for part in self.sets)

    @property
    def periodic(self) -> bool:
        """Whether the cell is repeated."""
        return not self.has("nopbc")

    def has(self, name: str) -> bool:
        """Return whether the system has a file (or HDF5 data set) of this name."""
        if not self.group:
            return (self.path / name).is_file()
        with h5py.File(self.path) as file:
            return name in file[self.group]

    def read(self, name: str) -> Array:
        """Load one array.

        Raises
        ------
        FileNotFoundError
            There is none of this name.
        OSError, ValueError, EOFError
            It cannot be read.
        """
        if not self.group:
            return np.asarray(np.load(self.path / name))
        with h5py.File(self.path) as file:
            if name not in file[self.group]:
                raise FileNotFoundError(f"{self}/{name}")
            return np.asarray(file[self.group][name])

    def length(self, part: str) -> int:
        """Return the number of frames of one set."""
        if not self.group:
            return len(np.load(self.path / part / "coord.npy", mmap_mode="r"))
        with h5py.File(self.path) as file:
            return len(file[self.group][part]["coord.npy"])

    def types(self) -> Array:
        """Return the type of each atom, shape (N,); all 0 in mixed type data.

        Raises
        ------
        ValueError
            type.raw is not a list of whole numbers.
        """
        if not self.group:
            return np.array((self.path / "type.raw").read_text().split(), dtype=int)
        return self.read("type.raw").astype(int).ravel()

    def type_names(self) -> list[str] | None:
        """Return the elements the types stand for; None: those of type_map in param.json."""
        if not self.has("type_map.raw"):
            return None
        if not self.group:
            return (self.path / "type_map.raw").read_text().split()
        return [name.decode() if isinstance(name, bytes) else str(name) for name in self.read("type_map.raw")]

    def frame_types(self) -> Array:
        """Return the type of each atom in each frame, shape (F, N); `VIRTUAL` where there is no atom."""
        if self.mixed:
            return np.concatenate([self.read(f"{part}/real_atom_types.npy") for part in self.sets]).astype(int)
        return np.broadcast_to(self.types(), (self.nframes, self.natoms))

    def array(self, name: str) -> Array:
        """Load one array over all sets; rows are frames."""
        return np.concatenate([self.read(f"{part}/{name}.npy") for part in self.sets])

    def files(self) -> Iterator[str]:
        """Yield what a training task needs of a folder, relative to it."""
        for name in ("type.raw", "type_map.raw", "nopbc"):
            if (self.path / name).exists():
                yield name
        for part in self.sets:
            for file in sorted((self.path / part).iterdir()):
                yield f"{part}/{file.name}"
