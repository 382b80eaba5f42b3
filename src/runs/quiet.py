"""Silence for the messages of libraries that say nothing about this run."""

import logging
import warnings


def quiet_libraries() -> None:
    """Hide Lightning's notes (devices found, advertisements, limits reached) and warnings that no user can act on."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    # Lightning's own use of deprecated torch APIs.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*functional.all_gather is deprecated.*")
    # Whether workers pay off depends on the data; the small scales are faster without.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # An epoch may be shorter than the logging interval: the epoch's numbers are logged anyway.
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    # A resumed run writes into its own folder on purpose.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty.*")
    # src.utils.reduced reduces before it logs.
    warnings.filterwarnings("ignore", message="It is recommended to use `self.log\\(.*sync_dist=True")
    # SampleTable counts a volume that the distributed sampler repeats once.
    warnings.filterwarnings("ignore", message=".*it is recommended to use `Trainer\\(devices=1, num_nodes=1\\)`.*")
    # eval.py leaves the callbacks of the training out on purpose.
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks used to create.*")
    # predict.py says itself that every case has its label map already.
    warnings.filterwarnings("ignore", message="Total length of `DataLoader` across ranks is zero.*")
    # MONAI's own use of what it deprecates.
    warnings.filterwarnings("ignore", message=".*get_mask_edges:always_return_as_numpy.*")
