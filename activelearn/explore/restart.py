"""The shell text of one MD task: continue where an interrupted one has written its last restart file.

DP-GEN's own rule (dpgen.restart.10000 is there, or nothing) loses up to 10,000 steps and leaves the rows and frames
that are written again in the files twice.
"""

from __future__ import annotations

from dataclasses import dataclass

_FIND = """\
    step=
    for file in {first}; do
        [ -s "$file" ] || continue
        number=${{file##*.}}
        case $number in *[!0-9]*) continue;; esac
        {complete}if [ -z "$step" ] || [ "$number" -gt "$step" ]; then step=$number; fi
    done
"""

_COMPLETE = """\
for other in {others}; do [ -s "dpgen.restart$other.$number" ] || continue 2; done
        """

_SCRIPT = """\
mkdir -p traj
newest() {{
{find}}}
newest
if [ -n "$step" ] && [ "$step" = "$(cat al.restarted 2>/dev/null)" ]; then
    # this restart file was tried and brought us no further: go back to the one before
    rm -f dpgen.restart*."$step"
    newest
fi
if [ -n "$step" ]; then
    # rows and frames from this step on will be written again
    echo "$step" > al.restarted
    for file in dpgen.restart*.*; do
        number=${{file##*.}}
        case $number in *[!0-9]*) continue;; esac
        [ "$number" -le "$step" ] || rm -f "$file"
    done
    for file in model_devi*.out; do
        [ -f "$file" ] || continue
        awk -v s="$step" '/^#/ || $1 + 0 < s' "$file" > al.new && mv al.new "$file"
    done
    for file in all.lammpstrj*; do
        [ -f "$file" ] || continue
        awk -v s="$step" '/^ITEM: TIMESTEP/ {{ if ((getline t) <= 0) exit; keep = (t + 0 < s)
            if (keep) {{ print; print t }}; next }} keep' "$file" > al.new && mv al.new "$file"
    done
    restart=1
else
    rm -f model_devi*.out all.lammpstrj* log.lammps* traj/*.lammpstrj*
    restart=0
fi
"""

_NO_RESTART = """\
mkdir -p traj
rm -f model_devi*.out all.lammpstrj* log.lammps* traj/*.lammpstrj*
restart=0
"""

_JOIN_LOG = """\
if [ -f al.log.lammps ]; then
    # what was logged before the restart
    { cat al.log.lammps; echo; cat log.lammps; } > al.new 2>/dev/null
    mv al.new log.lammps
    rm al.log.lammps
fi
"""
_KEEP_LOG = '[ "$restart" -eq 0 ] || [ ! -f log.lammps ] || mv log.lammps al.log.lammps\n'
_END = '[ "$code" -eq 0 ] && rm -f dpgen.restart*.* al.restarted\nexit "$code"'


@dataclass(frozen=True)
class Deck:
    """What the shell must know about a deck."""

    restart: str | None = "dpgen.restart.*"
    """The restart files it continues from when the variable `restart` is 1; None: it always starts anew."""
    own_log: bool = True
    """Whether it says itself which log it appends to; otherwise LAMMPS is told."""
    beads: tuple[str, ...] = ()
    """What the files of the beads of path-integral MD are numbered with."""


def script(command: str, deck: Deck) -> str:
    """Return the shell text of one task.

    Parameters
    ----------
    command
        How this machine starts LAMMPS.
    deck
        The deck it is given.
    """
    partition = f" -p {len(deck.beads)}x1" if deck.beads else ""
    log = "none" if deck.own_log else "log.lammps"
    lines = [
        "" if deck.own_log else _JOIN_LOG,
        _prologue(deck),
        "" if deck.own_log else _KEEP_LOG,
        f"{command}{partition} -i input.lammps -v restart $restart -log {log}\n",
        "code=$?\n",
        "" if deck.own_log else _JOIN_LOG,
        _END,
    ]
    return "".join(lines)


def _prologue(deck: Deck) -> str:
    if deck.restart is None:
        return _NO_RESTART
    first = f"dpgen.restart{deck.beads[0]}.*" if deck.beads else deck.restart
    complete = _COMPLETE.format(others=" ".join(deck.beads)) if deck.beads else ""
    return _SCRIPT.format(find=_FIND.format(first=first, complete=complete))
