"""What autograd tells about a graph, for layers that overwrite what they have saved."""

import torch
from torch import nn


def graph_is_freed() -> bool:
    """Whether the backward pass that runs frees what it has used, so that no second one needs it."""
    keeps = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)  # torch has no public way to ask
    return keeps is not None and not keeps()


def graph_is_watched() -> bool:
    """Whether hooks of saved tensors or of all modules may keep what the graph that is recorded now keeps."""
    hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return hooks is None or hooks(True) is not None or nn.modules.module._has_any_global_hook()
