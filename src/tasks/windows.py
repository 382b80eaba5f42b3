"""Images of any size through a network for images of one size: a window slides over them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from monai.inferers import sliding_window_inference
from torch import Tensor

from src.invertible.arguments import check_choice

BLENDINGS = ("constant", "gaussian")


@dataclass(frozen=True)
class SlidingWindow:
    """How windows overlap, and how their outputs are blended.

    Args:
        overlap: fraction of a window that the next one covers as well, in [0, 1).
        blending: weights of a window's voxels, ``gaussian`` (the centre counts most) or ``constant``.
        sw_batch_size: number of windows in one batch.

    Raises:
        ValueError: for an option out of its range.
    """

    overlap: float
    blending: str
    sw_batch_size: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ValueError(f"expected task.overlap in [0, 1), got {self.overlap}")
        check_choice("task.blending", self.blending, BLENDINGS)
        if self.sw_batch_size < 1:
            raise ValueError(f"expected a positive task.sw_batch_size, got {self.sw_batch_size}")

    def __call__(self, function: Callable[[Tensor], Tensor], images: Tensor, size: Sequence[int]) -> Tensor:
        """Return the blended outputs, in single precision, for images (B, C, *spatial) in windows (B, C, *size).

        An image that is smaller than a window is padded with zeros, and the padding is removed from the output.
        """
        output = sliding_window_inference(
            images,
            tuple(size),
            self.sw_batch_size,
            lambda x: function(x).float(),
            overlap=self.overlap,
            mode=self.blending,
        )
        assert isinstance(output, Tensor)
        return output
