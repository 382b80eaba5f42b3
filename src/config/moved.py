"""Saved configurations of earlier versions: classes and arguments that have moved, callbacks that no longer exist."""

from typing import Any

from src.config.signatures import signature_of
from src.config.trusted import targets_of_configs

# A callback of which every run has the function now.
GONE = "src.callbacks.total_time.TotalTime"
# Groups of arguments that once were the datamodule's own.
FOAM_GROUPS = {"foam": "src.ct.foam.FoamSpec", "scan": "src.ct.simulation.ScanSpec"}
# What the outputs of a segmentation mean was called its loss.
OUTPUTS = {"dice_ce": "classes", "sigmoid_regions": "regions"}
# A flow whose name another one has now, known by an argument that only the first has.
GLOW_FLOW = (".IConvNetFlow", "num_levels", "src.models.iconvnet_flows.IConvNetGlowFlow")


def modernised(node: Any) -> Any:
    """Return plain containers with the present paths of this project's classes.

    A class is known by its name: a path under ``src`` that no longer exists means the class of that name in configs/.
    """
    if isinstance(node, list):
        return [modernised(child) for child in node]
    if not isinstance(node, dict):
        return node
    kept = {key: modernised(child) for key, child in node.items() if _target(child) != GONE}
    target = _target(node)
    earlier, argument, today = GLOW_FLOW
    if target.endswith(earlier) and argument in node:
        kept["_target_"] = today
    elif target.startswith("src.") and signature_of(target) is None:
        named = [other for other in targets_of_configs() if other.rpartition(".")[2] == target.rpartition(".")[2]]
        kept["_target_"] = named[0] if len(named) == 1 else target
    if target.endswith(".Segmentation") and kept.get("loss") in OUTPUTS:
        kept["outputs"] = OUTPUTS[kept.pop("loss")]
    return _grouped(kept) if target.endswith(".FoamCTDataModule") else kept


def _grouped(datamodule: dict[str, Any]) -> dict[str, Any]:
    for group, target in FOAM_GROUPS.items():
        signature = signature_of(target)
        assert signature is not None
        taken = {key: datamodule.pop(key) for key in signature.parameters if key in datamodule}
        if taken:
            datamodule[group] = {"_target_": target, **taken}
    return datamodule


def _target(node: Any) -> str:
    return str(node.get("_target_", "")) if isinstance(node, dict) else ""
