"""Modules of FrEIA that contradict their own equations: corrected or refused, inside nets as well."""

from typing import Any

from torch import Tensor, nn

from .log_determinants import sum_per_sample

_REFUSED = {
    "IResNetLayer": "its log-determinant has no gradient and is evaluated at the wrong point of the inverse, and the "
    "inverse backpropagates through only one iteration; use ResidualBlock(channels, lambda *_: layer.residual), which "
    "keeps its weights",
    "OrthogonalTransform": "its matrix is orthogonal only every correction_interval steps, and its inverse is inexact "
    "in between; use OrthogonalMixing and GlobalAffine, which take its weights",
    "InvAutoFC": "it is a bijection only once it has converged, and has no log-determinant: use OrthogonalMixing",
    "InvAutoConv2D": "it is a bijection only once it has converged, and has no log-determinant: use OrthogonalMixing",
}


def correct(module: nn.Module) -> None:
    """Correct the parts of a FrEIA module by hooks, which also hold where the module is called by itself.

    - ``HaarDownsampling`` and ``HaarUpsampling`` overwrite what they upsample: they get a copy.
    - ``InvertibleSigmoid`` returns no pair without ``jac``, and sums an image's log-determinant over its channels only.
    - ``SequenceINN`` sums the log-determinants of its parts even where ``jac`` is off and some return None. That of the
      main branch takes no tuple, although its parts do.
    - ``LearnedElementwiseScaling`` returns the log-determinant of its forward direction, ``Σ s``, also in reverse.

    Raises:
        TypeError: for a module that cannot be corrected, or one inside.
    """
    for part in module.modules():
        names = _freia_classes(part)
        reason = next((reason for name, reason in _REFUSED.items() if name in names), None)
        if "HouseholderPerm" in names and part.conditional:
            reason = "FrEIA fails on a matrix product if it has a condition; use ConditionalHouseholder"
        if reason is not None:
            raise TypeError(f"expected a bijection with an exact inverse, got FrEIA's {type(part).__name__}: {reason}")
        if "HaarDownsampling" in names and not part.permute:
            part.register_forward_pre_hook(_copy_what_is_overwritten, with_kwargs=True)
        elif "SequenceINN" in names:
            part.register_forward_pre_hook(_give_tensor_and_ask_for_logdet, with_kwargs=True)
        elif "InvertibleSigmoid" in names:
            part.register_forward_hook(_return_pair, with_kwargs=True)
        elif "LearnedElementwiseScaling" in names:
            part.register_forward_hook(_give_logdet_of_direction, with_kwargs=True)


def _freia_classes(part: nn.Module) -> set[str]:
    """The names of FrEIA's classes from which a module's class derives."""
    return {cls.__name__ for cls in type(part).__mro__ if cls.__module__.startswith("FrEIA.")}


def _copy_what_is_overwritten(part: nn.Module, args: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    x, *rest = args
    upsamples = options.get("rev", False) != ("HaarUpsampling" in _freia_classes(part))
    return ((tuple(tensor.clone() for tensor in x), *rest), options) if upsamples else None


def _give_tensor_and_ask_for_logdet(part: nn.Module, args: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    x, *rest = args
    return (x if isinstance(x, Tensor) else x[0], *rest), {**options, "jac": True}


def _return_pair(part: nn.Module, args: Any, options: dict[str, Any], result: Any) -> tuple[tuple[Tensor, ...], Any]:
    outputs, logdet = result if len(result) == 2 else (result, None)  # a pair already, where wrapped twice
    return outputs, sum_per_sample(logdet) if logdet is not None and logdet.ndim > 1 else logdet


def _give_logdet_of_direction(part: Any, args: Any, options: dict[str, Any], result: Any) -> tuple[Any, Any]:
    outputs, logdet = result
    if logdet is None:
        return outputs, None
    return outputs, sum_per_sample(-part.s if options.get("rev", False) else part.s).expand(outputs[0].shape[0])
