"""What all settings models have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen settings; each field is declared once: type, default and docstring together."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, strict=False)


def keys(model: type[BaseModel]) -> set[str]:
    """Return the keys of param.json that `model` declares."""
    return {field.alias or name for name, field in model.model_fields.items()}
