"""TensorBoard with the final numbers of the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.image import imread
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from src.loggers.run_logger import LatestRow, final_numbers


class TensorBoardRun(TensorBoardLogger):
    """Lightning's logger; the HPARAMS page shows the run with its configuration and its final numbers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._settings = kwargs
        self._config: dict[str, Any] = {}
        self._latest = LatestRow()

    def describe(self, config: dict[str, Any], tags: list[str]) -> None:
        """Keep the configuration until the final numbers are known."""
        self._config = config

    def go_on_from(self, step: int) -> None:
        """Have TensorBoard hide what the interrupted run logged for ``step`` and later ones."""
        super().__init__(**self._settings, purge_step=step)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log a row, unless it repeats the latest one."""
        if not self._latest.comes_again(metrics, step):
            super().log_metrics(metrics, step)

    @rank_zero_only
    def log_image(self, key: str, path: Path, step: int) -> None:
        """Show a picture."""
        self.experiment.add_image(key, imread(path)[..., :3], step, dataformats="HWC")

    @rank_zero_only
    def finish(self, summary: dict[str, Any]) -> None:
        """Write the row and close the file."""
        # Separate names: the table must not add a point to a curve.
        numbers = {f"final/{name}": value for name, value in final_numbers(summary).items()}
        self.log_hyperparams(self._config, numbers)
        self.save()
        self.experiment.close()
