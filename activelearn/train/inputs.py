"""input.json of one model: the user's default_training_param with data, seeds and what this iteration changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from activelearn.train import sections

NAMES = {"disp_file": "lcurve.out", "save_ckpt": "model.ckpt"}
"""File names everything else relies on."""


@dataclass(frozen=True)
class Reuse:
    """What a training that goes on from an old model changes; None leaves the user's value."""

    numb_steps: int | None = None
    start_lr: float | None = None
    start_pref_e: float | None = None
    start_pref_f: float | None = None


@dataclass(frozen=True)
class Common:
    """What the inputs of all models of one iteration share."""

    systems: tuple[str, ...]
    """Paths as a training task sees them."""
    batch_sizes: tuple[int | str, ...]
    type_map: tuple[str, ...]
    legacy: bool = False
    """For DeePMD-kit 1.x, which has the data in `training` itself."""
    ele_temp: int = 0
    """Electron temperature as a parameter: 0 none, 1 of the frame, 2 of each atom."""
    reuse: Reuse | None = None
    probabilities: str | None = None
    """How often old and new systems are drawn, in DeePMD-kit's words."""


def render(
    given: Mapping[str, Any], common: Common, seeds: Sequence[int], activation: str | Sequence[str] | None
) -> dict[str, Any]:
    """Return input.json of one model.

    Parameters
    ----------
    given
        default_training_param of this model.
    common
        What all models share.
    seeds
        Four independent seeds.
    activation
        Activation function of all nets, or of (descriptor, fitting net).
    """
    text: dict[str, Any] = copy.deepcopy(dict(given))
    _data(text, common)
    text["model"].setdefault("type_map", list(common.type_map))
    if common.ele_temp:
        wanted, other = ("numb_fparam", "numb_aparam")[:: 1 if common.ele_temp == 1 else -1]
        for net in sections.parts(text, "fitting_net"):
            net[wanted] = 1
            net.pop(other, None)
    if common.reuse:
        _continue(text, common.reuse)
    _seeds(text, seeds)
    if activation is not None:
        first, second = (activation, activation) if isinstance(activation, str) else activation
        for part in sections.descriptors(text):
            part["activation_function"] = first
        for net in sections.parts(text, "fitting_net"):
            net["activation_function"] = second
    text["training"].update({key: name for key, name in NAMES.items() if key in text["training"]})
    return text


def _data(text: dict[str, Any], common: Common) -> None:
    training = text["training"]
    if common.legacy:
        training.update(systems=list(common.systems), batch_size=list(common.batch_sizes))
        if common.probabilities:
            training["auto_prob_style"] = common.probabilities
        return
    for key in ("systems", "batch_size", "set_prefix"):  # DeePMD-kit would take the file for one of version 1
        training.pop(key, None)
    data = training["training_data"] = dict(training.get("training_data", {}))
    data["systems"] = list(common.systems)
    asked = data.get("batch_size")
    if not (isinstance(asked, str) and asked.startswith("mixed:")):
        data["batch_size"] = list(common.batch_sizes)
    if common.probabilities:
        data["auto_prob"] = common.probabilities


def _continue(text: dict[str, Any], reuse: Reuse) -> None:
    training, loss = text["training"], text.get("loss", {})
    if reuse.numb_steps is not None:
        name = next((key for key in ("numb_steps", "stop_batch") if key in training), None)
        if name:
            training[name] = reuse.numb_steps
    for key, value in (("start_pref_e", reuse.start_pref_e), ("start_pref_f", reuse.start_pref_f)):
        if value is not None and loss.get(key) is not None:
            loss[key] = value
    if reuse.start_lr is not None:
        text["learning_rate"]["start_lr"] = reuse.start_lr


def _seeds(text: dict[str, Any], seeds: Sequence[int]) -> None:
    for part in sections.descriptors(text):
        if part.get("type") != "loc_frame":  # it has no net
            part["seed"] = seeds[0]
    for place, key in ((1, "fitting_net"), (2, "type_embedding")):
        for part in sections.parts(text, key):
            part["seed"] = seeds[place]
    text["training"]["seed"] = seeds[3]


def probabilities(n_old: int, n_all: int, ratio: float) -> str:
    """Say in DeePMD-kit's words that the first n_old of n_all systems are drawn with probability `ratio`."""
    return f"prob_sys_size; 0:{n_old}:{ratio:f}; {n_old}:{n_all}:{1.0 - ratio:f}"
