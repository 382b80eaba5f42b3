"""Plans of nnU-Net v2 with our network in the place of its own.

    python -m invertible_imaging.models.nnunet_plans <nnUNet_preprocessed>/Dataset001_Name/nnUNetPlans.json

writes ``nnUNetPlans_iunet.json`` beside nnU-Net's own plans. ``nnUNetv2_train 1 3d_fullres 0 -p nnUNetPlans_iunet``
then trains our network on the data that nnU-Net has preprocessed already.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..invertible.engine.policies import POLICIES
from .blocks import NORMS
from .nnunet import NnunetIUNet

# What our network takes from the arguments of nnU-Net's own.
SHARED = ("n_stages", "features_per_stage", "strides", "conv_op")


def iunet_plans(plans: Mapping[str, Any], suffix: str = "iunet", **options: Any) -> dict[str, Any]:
    """A copy of nnU-Net's plans with `NnunetIUNet` in each configuration that names a network.

    Levels, channels and strides stay nnU-Net's; its kernel sizes, numbers of convolutions, dropout and activations have
    no counterpart. Patch and batch sizes stay, and the folders of the preprocessed data.

    Args:
        suffix: of the plans' name, which nnU-Net's option ``-p`` and the folders of results use.
        options: of the network, such as ``num_couplings``.

    Raises:
        ValueError: for what is no plans, and if no configuration names a network, as in plans of nnU-Net before 2.4.
    """
    if not {"plans_name", "configurations"} <= plans.keys():
        raise ValueError(f"expected plans with plans_name and configurations, got {', '.join(plans) or 'nothing'}")
    changed = copy.deepcopy(dict(plans))
    changed["plans_name"] = f"{plans['plans_name']}_{suffix}"
    with_network = [c for c in changed["configurations"].values() if "architecture" in c]
    if not with_network:
        raise ValueError(
            "expected plans whose configurations have an architecture, as nnU-Net 2.4 and later write them"
        )
    for configuration in with_network:
        given = configuration["architecture"]["arch_kwargs"]
        configuration["architecture"] = {
            "network_class_name": f"{NnunetIUNet.__module__}.{NnunetIUNet.__name__}",
            "arch_kwargs": {**{name: given[name] for name in SHARED}, **options},
            "_kw_requires_import": ["conv_op"],
        }
    return changed


def write_plans(source: Path, suffix: str = "iunet", **options: Any) -> Path:
    """Write `iunet_plans` of a file beside it, and return where: nnU-Net finds plans by their name."""
    plans = iunet_plans(json.loads(source.read_text()), suffix, **options)
    target = source.with_name(f"{plans['plans_name']}.json")
    target.write_text(json.dumps(plans, indent=4))
    return target


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("plans", type=Path, help="plans that nnU-Net has written")
    parser.add_argument("--suffix", default="iunet", help="of the new plans' name")
    parser.add_argument("--num-couplings", type=int, default=2, help="per level and side")
    parser.add_argument("--norm", choices=NORMS, default="instance", help="of the coupling functions")
    parser.add_argument("--backprop", choices=POLICIES, default="reversible", help="memory policy of the training")
    options = vars(parser.parse_args(arguments))
    source = options.pop("plans")
    try:
        print(f"wrote {write_plans(source, **options)}")
    except (OSError, ValueError) as error:
        parser.error(f"expected the plans that nnUNetv2_plan_and_preprocess has written, got {source}: {error}")


if __name__ == "__main__":
    main()
