"""Where a run stands: one row per iteration."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from activelearn.record import Record
from activelearn.workdir import STAGES, Workdir


@dataclass(frozen=True)
class Row:
    """One iteration; None where its stage is not finished."""

    iteration: int
    training_frames: int | None = None
    carried_over: bool = False
    train_rmse_f: list[float | None] = field(default_factory=list)
    """Force error of each model on its last training batch, eV/A."""
    train_rmse_e: list[float | None] = field(default_factory=list)
    """Energy error of each model on its last training batch, eV/atom."""
    heldout_rmse_f: list[float] = field(default_factory=list)
    """Force error of each model on the held-out data, eV/A."""
    heldout_rmse_e: list[float] = field(default_factory=list)
    """Energy error, eV/atom."""
    heldout_rmse_v: list[float] = field(default_factory=list)
    """Virial error, eV/atom."""
    explored: int | None = None
    """Frames explored."""
    died: int = 0
    """MD tasks that died before their time."""
    accurate: int | None = None
    candidate: int | None = None
    failed: int | None = None
    picked: int | None = None
    labelled: int | None = None
    label_failures: dict[str, str] = field(default_factory=dict)
    """Failed labels and their causes."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each finished stage, s."""


@dataclass(frozen=True)
class Status:
    """A whole run."""

    rows: list[Row]
    current: str
    """The stage in progress ("2 explore"), or empty when none was started and not finished."""


def collect(workdir: Workdir) -> Status:
    """Read the state of the run in `workdir` from its record."""
    record = Record.open(workdir)
    iterations = sorted({iteration for iteration, _ in record.done})
    rows = [_row(record, iteration) for iteration in iterations]
    open_stages = [key for key in record.started if key not in record.done]
    current = f"{open_stages[-1][0]} {open_stages[-1][1]}" if open_stages else ""
    return Status(rows, current)


def _row(record: Record, iteration: int) -> Row:
    results: dict[str, Any] = {stage: {} for stage in STAGES}
    seconds = {}
    for stage in STAGES:
        done = record.get(iteration, stage)
        if done:
            results[stage] = done.result
            if "made_by" not in done.result:  # of what DP-GEN did nobody knows how long it took
                seconds[stage] = done.seconds
    train, explore, select, label = (results[stage] for stage in STAGES)
    heldout = train.get("heldout", {})
    return Row(
        iteration=iteration,
        training_frames=train.get("frames"),
        carried_over=bool(train.get("carried")),
        train_rmse_f=list(train.get("rmse_f", [])),
        train_rmse_e=list(train.get("rmse_e", [])),
        heldout_rmse_f=heldout.get("force", []),
        heldout_rmse_e=heldout.get("energy", []),
        heldout_rmse_v=heldout.get("virial", []),
        explored=explore.get("frames"),
        died=explore.get("died", 0),
        accurate=select.get("accurate"),
        candidate=select.get("candidate"),
        failed=select.get("failed"),
        picked=select.get("picked"),
        labelled=label.get("labelled"),
        label_failures=label.get("failures", {}),
        seconds=seconds,
    )


def as_dict(status: Status) -> dict[str, Any]:
    """Return the status as JSON values; errors in eV/A and eV/atom, times in s."""
    return asdict(status)


def show(status: Status, console: Console) -> None:
    """Print the table."""
    if not status.rows and not status.current:
        console.print("nothing is recorded here yet: al run PARAM MACHINE starts a run")
        return
    table = Table(title="held-out and training errors: median over the models", title_justify="left")
    table.add_column("iter", justify="right")
    table.add_column("training\nframes", justify="right")
    table.add_column("train F\neV/A", justify="right")
    table.add_column("held-out F\neV/A", justify="right")
    table.add_column("held-out E\nmeV/atom", justify="right")
    table.add_column("held-out V\nmeV/atom", justify="right")
    table.add_column("explored\nframes", justify="right")
    table.add_column("accurate", justify="right")
    table.add_column("candidate", justify="right")
    table.add_column("failed", justify="right")
    table.add_column("labelled", justify="right")
    table.add_column("wall time, s\ntrain/explore/select/label", justify="right")
    for row in status.rows:
        total = (row.accurate or 0) + (row.candidate or 0) + (row.failed or 0)
        labels = "" if row.labelled is None else str(row.labelled)
        if row.label_failures:
            labels += f" ({len(row.label_failures)} failed)"
        table.add_row(
            str(row.iteration),
            f"{'=' if row.carried_over else ''}{row.training_frames if row.training_frames is not None else ''}",
            _median(row.train_rmse_f),
            _median(row.heldout_rmse_f),
            _median(row.heldout_rmse_e, 1000),
            _median(row.heldout_rmse_v, 1000),
            "" if row.explored is None else f"{row.explored}{f' ({row.died} died)' if row.died else ''}",
            _share(row.accurate, total),
            _share(row.candidate, total),
            _share(row.failed, total),
            labels,
            "/".join(f"{row.seconds[stage]:.0f}" if stage in row.seconds else "-" for stage in STAGES),
        )
    console.print(table)
    if status.current:
        console.print(f"in progress (iteration, stage): {status.current}")
    for row in status.rows:
        for name, cause in row.label_failures.items():
            console.print(f"iteration {row.iteration}: {name} failed: {cause}")


def _median(values: Iterable[float | None], factor: float = 1.0) -> str:
    numbers = [value for value in values if value is not None]
    return f"{factor * statistics.median(numbers):.3g}" if numbers else ""


def _share(number: int | None, total: int) -> str:
    return "" if number is None else f"{number} ({100 * number / max(1, total):.0f} %)"
