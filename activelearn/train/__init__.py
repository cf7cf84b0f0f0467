"""Training of the ensemble."""

from typing import Final

TRAINERS: Final[dict[str, str]] = {"dp": "activelearn.train.deepmd:DeepMD"}
GROUP: Final = "activelearn.trainers"
