"""What the command line of a prediction says about files and flows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from src.runs.saved_run import SavedRunOptions
from src.utils.errors import ConfigError, check_range
from src.utils.image_files import ending_of


@dataclass(frozen=True, kw_only=True)
class PredictionOptions(SavedRunOptions):
    """Options of predict.py.

    Attributes:
        output: the folder of the predictions.
        input: an image file, or a folder of them; None for the datamodule's own scans, and for samples.
        mode: what a flow does; other tasks have no choice.
        num_samples: of ``mode=sample``.
        temperature: of ``mode=sample``, the deviation of the latents.
        num_steps: images on the path between two, its ends included.
        path: of ``mode=interpolate``, between latents.
        overwrite: whether predictions that exist are replaced.

    Raises:
        ConfigError: for options that do not fit together.
        ValueError: for a number out of its range.
    """

    output: Annotated[str, "<folder>"]
    input: Path | None = None
    mode: Literal["sample", "encode", "decode", "interpolate", "log_likelihood"] | None = None
    num_samples: int = 16
    temperature: float = 1.0
    num_steps: int = 9
    path: Literal["straight", "spherical"] = "straight"
    overwrite: bool = False

    def __post_init__(self) -> None:
        output = Path(self.output)
        if output.exists() and not output.is_dir():
            raise ConfigError(f"expected output=<folder>, got {output}, which is a file")
        if not output.exists() and ending_of(output.name) is not None:
            raise ConfigError(f"expected output=<folder>, got {output}, the name of an image file")
        check_range(0, temperature=self.temperature)
        check_range(2, num_steps=self.num_steps)
        if self.mode == "sample" and self.input is not None:
            raise ConfigError(f"expected no input for mode=sample, got {self.input}")
        if self.mode not in (None, "sample") and self.input is None:
            raise ConfigError(f"expected input=<image file or folder> for mode={self.mode}, got none")
