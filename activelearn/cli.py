"""The command line; each command imports what it needs, so that `al --help` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from activelearn import __version__
from activelearn.errors import ActiveLearnError, ConfigError, Problem

if TYPE_CHECKING:
    from activelearn.preflight import Report
    from activelearn.project import Project

EXISTING = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
workdir_option = click.option(
    "-C", "--directory", type=FOLDER, default=Path(), help="The folder of the run (default: this one)."
)


class Group(click.Group):
    """A group whose errors are told in plain words."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; exit 2 with every problem of the input files, 1 with what stopped the run."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            _tell(error.problems)
            sys.exit(2)
        except ActiveLearnError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("stopped; tasks in flight go on, and the same command follows them", err=True)
            sys.exit(130)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="activelearn")
def main() -> None:
    """Active learning of machine-learned interatomic potentials.

    al run PARAM MACHINE loops: train an ensemble, explore with molecular dynamics, select uncertain frames, label them.
    The same command continues after any interruption. PARAM and MACHINE are DP-GEN's param.json and machine.json.
    """


@main.command()
@click.argument("param", type=EXISTING)
@click.argument("machine", type=EXISTING)
@click.option("-v", "--verbose", is_flag=True, help="Show debug messages.")
@workdir_option
def run(param: Path, machine: Path, verbose: bool, directory: Path) -> None:
    """Run the loop, or continue it where it stopped."""
    from rich.console import Console

    from activelearn import __version__, lock, log, loop
    from activelearn.report import status

    project, report = _prepared(param, machine, directory)
    _tell(report.problems)
    if report.errors:
        sys.exit(2)
    with lock.hold(project.workdir.lock):
        logger = log.set_up(project.workdir.log, verbose)
        logger.info("activelearn %s in %s: al run %s %s", __version__, project.workdir.root, param, machine)
        try:
            loop.run(project)
        except ActiveLearnError as error:
            logger.debug("stopped: %s", error)
            raise
        logger.info("all %d exploration jobs are done", len(project.param.model_devi_jobs))
    status.show(status.collect(project.workdir), Console(width=None if sys.stdout.isatty() else 160))


@main.command()
@click.argument("param", type=EXISTING)
@click.argument("machine", type=EXISTING)
@click.option("--json", "as_json", is_flag=True, help='Print {"ok", "errors", "warnings", "plan"} and nothing else.')
@click.option("--no-files", is_flag=True, help="Check what is written in the two files, not the files they name.")
@workdir_option
def check(param: Path, machine: Path, as_json: bool, no_files: bool, directory: Path) -> None:
    """Check both files and all they name, and print the plan. Exit 0, or 2 with every problem."""
    import json
    from dataclasses import asdict

    try:
        _, report = _prepared(param, machine, directory, files=not no_files)
        problems, plan = report.problems, report.plan
    except ConfigError as error:
        if not as_json:
            raise
        problems, plan = error.problems, ()
    errors = [problem for problem in problems if problem.level == "error"]
    if as_json:
        warnings = [problem for problem in problems if problem.level == "warning"]
        value = {
            "ok": not errors,
            "errors": [asdict(problem) for problem in errors],
            "warnings": [asdict(problem) for problem in warnings],
            "plan": [asdict(item) for item in plan],
        }
        click.echo(json.dumps(value, indent=1))
    else:
        _tell(problems)
        if not errors and no_files:
            click.echo("both files are well-formed; the files they name were not looked at")
        elif not errors:
            _show_plan(report)
    sys.exit(2 if errors else 0)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@workdir_option
def status(as_json: bool, directory: Path) -> None:
    """Show where a run stands: errors, frames, labels and times of each iteration."""
    import json

    from rich.console import Console

    from activelearn.report import status as report
    from activelearn.workdir import Workdir

    found = report.collect(Workdir(directory.resolve()))
    if as_json:
        click.echo(json.dumps(report.as_dict(found), indent=1))
    else:
        report.show(found, Console(width=None if sys.stdout.isatty() else 160))


@main.command()
@click.argument("param", type=EXISTING)
@click.option("-o", "--output", type=EXISTING, required=True, help="Folder or file to write.")
@click.option(
    "--format",
    "fmt",
    type=click.Choice(["deepmd/npy", "deepmd/hdf5", "extxyz"]),
    default="deepmd/npy",
    show_default=True,
)
@click.option("--initial/--no-initial", default=True, show_default=True, help="Include the initial data.")
@workdir_option
def collect(param: Path, output: Path, fmt: str, initial: bool, directory: Path) -> None:
    """Write the data set of a run into one place."""
    from activelearn.config import decode, legacy
    from activelearn.config.base import keys
    from activelearn.config.param import Param
    from activelearn.report import collect as report
    from activelearn.workdir import Workdir

    raw, _ = legacy.param(decode.read(param), str(param))
    shared = {key: value for key, value in raw.items() if key in keys(Param)}
    found, problems = decode.settings(shared, [Param], str(param))
    settings = found.get(Param)
    if not isinstance(settings, Param):
        raise ConfigError(problems)
    frames = report.collect(settings, Workdir(directory.resolve()), output, fmt, initial)
    click.echo(f"{frames} frames written to {output} ({fmt})")


@main.command()
def schema() -> None:
    """Print a JSON Schema of param.json, for editors: each key with its description, unit and default."""
    import json

    from activelearn import schema as builder

    click.echo(json.dumps(builder.build(), indent=1))


def _prepared(param: Path, machine: Path, directory: Path, files: bool = True) -> tuple[Project, Report]:
    """Decode and check; all problems of both come together.

    Raises
    ------
    ConfigError
        The files cannot be decoded.
    """
    from activelearn import preflight, project

    loaded, problems = project.load(param, machine, directory.resolve())
    return loaded, preflight.check(loaded, problems, files)


def _tell(problems: tuple[Problem, ...]) -> None:
    for level in ("warning", "error"):
        for problem in problems:
            if problem.level == level:
                click.echo(f"{level}: {problem}", err=True)
    errors = sum(problem.level == "error" for problem in problems)
    if errors:
        click.echo(f"{errors} error(s); nothing was started", err=True)


def _show_plan(report: Report) -> None:
    held = f", {report.heldout_frames} held-out frames" if report.heldout_frames else ""
    click.echo(f"initial data: {report.initial_frames} frames in {report.initial_systems} systems{held}")
    click.echo("iteration  systems              MD tasks  frames explored  labels at most")
    for item in report.plan:
        systems = ",".join(str(system) for system in item.systems)
        frames = "?" if item.frames is None else item.frames
        click.echo(f"{item.iteration:9d}  {systems:20s} {item.tasks:8d}  {frames!s:>15s}  {item.labels:14d}")
    click.echo(f"then a final training: {len(report.plan) + 1} trainings in all")
