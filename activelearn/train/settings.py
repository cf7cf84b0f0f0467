"""The keys of param.json that concern training with DeePMD-kit."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt

from activelearn.config.base import Settings
from activelearn.train import backends
from activelearn.train.backends import BACKENDS, Backend

DEFAULT_RATIO = 10.0
"""`auto`: how much more often than by their number new frames are drawn."""


def _one_as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.strip().lower().removeprefix(".") if isinstance(value, str) else value


def _ratio(value: object) -> object:
    """Accept a share, `auto`, and `auto:f`."""
    if isinstance(value, str):
        word, mark, factor = value.strip().partition(":")
        try:
            good = word == "auto" and (not mark or float(factor) > 0)
        except ValueError:
            good = False
        if not good:
            raise ValueError('must be a number between 0 and 1, "auto" or "auto:F" with a number F above 0')
    elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError('must be a number between 0 and 1, "auto" or "auto:F"')
    return value


Paths = Annotated[list[str], BeforeValidator(_one_as_list), Field(min_length=1)]


class DeepMDSettings(Settings):
    """Keys of param.json that concern training."""

    mlp_engine: Literal["dp"] = "dp"
    """What is trained: DeePMD-kit is all there is."""
    numb_models: Annotated[int, Field(ge=2)] = 4
    """Number of models of the ensemble; their disagreement is the model deviation."""
    train_backend: Annotated[
        Literal["tensorflow", "pytorch", "pytorch-exportable", "jax"], BeforeValidator(backends.canonical)
    ] = "tensorflow"
    """DeePMD-kit backend: tensorflow, pytorch, pytorch-exportable (or pt-expt), jax."""
    model_format: Annotated[Literal["pb", "pth", "pt2", "pte", "savedmodel"], BeforeValidator(_lower)] | None = None
    """Form of the exported models; by default the backend's: pb, pth, pt2 (pytorch-exportable), savedmodel (jax)."""
    default_training_param: dict[str, Any] | list[dict[str, Any]]
    """DeePMD-kit's input.json, one for all models or a list with one per model; data and seeds in it are set here."""
    dp_train_skip_neighbor_stat: bool = False
    """Skip DeePMD-kit's count of neighbours before training."""
    dp_compress: bool = False
    """Compress the frozen models and explore with the compressed ones."""
    training_init_model: bool = False
    """Start each training from the models of the iteration before; in iteration 0 from training_iter0_model_path."""
    training_iter0_model_path: Paths | None = None
    """Folders with a checkpoint for iteration 0 (patterns allowed), as many as models."""
    training_init_frozen_model: Paths | None = None
    """Frozen models that iteration 0 starts from, one per model."""
    training_finetune_model: Paths | None = None
    """Pretrained models that iteration 0 fine-tunes, one per model."""
    training_reuse_iter: NonNegativeInt | None = None
    """From this iteration on each training starts from the models of the iteration before."""
    training_reuse_old_ratio: Annotated[float | str, BeforeValidator(_ratio)] = "auto"
    """Share of the batches from data of earlier iterations when models are reused; "auto:F" draws new frames F times
    as often as their number would, "auto" is "auto:10"."""
    training_reuse_numb_steps: PositiveInt | None = None
    """Training steps when models are reused."""
    training_reuse_start_lr: Annotated[float, Field(gt=0)] | None = None
    """Initial learning rate when models are reused."""
    training_reuse_start_pref_e: Annotated[float, Field(ge=0)] | None = None
    """Initial prefactor of the energy loss when models are reused."""
    training_reuse_start_pref_f: Annotated[float, Field(ge=0)] | None = None
    """Initial prefactor of the force loss when models are reused."""
    model_devi_activation_func: list[str] | list[Annotated[list[str], Field(min_length=2, max_length=2)]] | None = None
    """Activation function of each model: a name, or [of the descriptor, of the fitting net]."""
    srtab_file_path: str | None = None
    """Table of a short-range pair interaction (ZBL), which each training task gets; model.use_srtab names it."""
    one_h5: bool = False
    """Send all training data as one HDF5 file."""

    @property
    def members(self) -> list[dict[str, Any]]:
        """default_training_param of each model."""
        given = self.default_training_param
        return given if isinstance(given, list) else [given] * self.numb_models

    @property
    def backend(self) -> Backend:
        """The backend."""
        return BACKENDS[self.train_backend]

    @property
    def format(self) -> str:
        """Form of the exported models."""
        return self.model_format or self.backend.formats[0]

    @property
    def suffix(self) -> str:
        """Suffix of the exported models."""
        return f".{self.format}"

    @property
    def exported_apart(self) -> bool:
        """Whether models are exported in tasks of their own, where they are used."""
        return self.format == backends.PT2

    def reuses(self, iteration: int) -> bool:
        """Return whether the training of an iteration continues from old models with the settings for that."""
        if self.training_reuse_iter is None or iteration < self.training_reuse_iter:
            return False
        return iteration > 0 or self.training_iter0_model_path is not None

    def starts_from_checkpoints(self, iteration: int) -> bool:
        """Return whether the training of an iteration starts from checkpoints."""
        return self.training_init_model or self.reuses(iteration)

    def old_share(self, n_old: int, n_new: int) -> float:
        """Return the share of batches from old data, given the numbers of old and new frames."""
        ratio = self.training_reuse_old_ratio
        if isinstance(ratio, str):
            factor = float(ratio.partition(":")[2] or DEFAULT_RATIO)
            return n_old / (n_old + n_new * factor)
        return ratio
