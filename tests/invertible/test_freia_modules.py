"""Every module that FrEIA exports inside `FreiaModule`: the right value is plain autograd's, in all directions."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from src.invertible import POLICIES, InvertibleModule, Sequential, set_backprop
from src.invertible.interop import FreiaModule
from src.invertible.layers.coupling import AdditiveCoupling
from src.invertible.layers.residual import ResidualBlock
from src.invertible.module import tensors_of
from src.invertible.shapes import as_state
from tests.invertible.table.samples import dense, subnet

Fm = pytest.importorskip("FrEIA.modules")
Ff = pytest.importorskip("FrEIA.framework")
pytestmark = [pytest.mark.usefixtures("double_precision"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TOLERANCE = 1e-6  # FrEIA keeps some constants in float32
METHODS = ("forward", "inverse", "forward_and_logdet", "inverse_and_logdet")
VECTOR, IMAGE = (6,), (4, 4, 4)
Parts = list[tuple[type, dict[str, Any]]]


def sequence(*parts: tuple[type, dict[str, Any]], dims: tuple[int, ...] = VECTOR) -> Any:
    net = Ff.SequenceINN(*dims)
    for kind, options in parts:
        net.append(kind, **options)
    return net


def graph(*parts: tuple[type, dict[str, Any]], dims: tuple[int, ...] = VECTOR) -> Any:
    nodes = [Ff.InputNode(*dims)]
    for kind, options in parts:
        nodes.append(Ff.Node(nodes[-1], kind, options))
    return Ff.GraphINN([*nodes, Ff.OutputNode(nodes[-1])])


def parts() -> Parts:
    """Each kind that is corrected, inside a net of FrEIA's."""
    haar = {"order_by_wavelet": False, "rebalance": 0.7}
    return [
        (Fm.HaarDownsampling, haar),
        (Fm.LearnedElementwiseScaling, {}),
        (Fm.InvertibleSigmoid, {}),
        (Fm.InvAutoAct, {}),
        (Fm.HaarUpsampling, haar),
        (Fm.GLOWCouplingBlock, {"subnet_constructor": subnet(2)}),
    ]


def coupling(kind: str, dims: tuple[int, ...], *conditions: tuple[int, ...], **options: Any) -> Any:
    constructor = subnet(2) if len(dims) > 1 else dense
    return getattr(Fm, kind)([dims], list(conditions), subnet_constructor=constructor, **options)


# FrEIA's module; the shapes of states and conditions follow from what it declares.
MODULES: dict[str, Callable[[], Any]] = {
    "all-in-one": lambda: coupling("AllInOneBlock", VECTOR),
    "all-in-one-condition": lambda: coupling("AllInOneBlock", IMAGE, (1, 4, 4), global_affine_type="SIGMOID"),
    "all-in-one-gin": lambda: coupling("AllInOneBlock", VECTOR, gin_block=True, permute_soft=True),
    # The main branch fails without `permute_soft`.
    "all-in-one-householder": lambda: coupling(
        "AllInOneBlock", VECTOR, permute_soft=True, learned_householder_permutation=2, reverse_permutation=True
    ),
    "actnorm": lambda: Fm.ActNorm([IMAGE]),
    "householder": lambda: Fm.HouseholderPerm([VECTOR], n_reflections=3),
    "householder-fixed": lambda: Fm.HouseholderPerm([VECTOR], n_reflections=2, fixed=True),
    "act": lambda: Fm.InvAutoAct([IMAGE]),
    "act-fixed": lambda: Fm.InvAutoActFixed([IMAGE], learnable=False),
    "act-two-sided": lambda: Fm.InvAutoActTwoSided([VECTOR]),
    "scaling": lambda: Fm.LearnedElementwiseScaling([IMAGE]),
    "nice": lambda: coupling("NICECouplingBlock", IMAGE, (1, 4, 4)),
    "rnvp": lambda: coupling("RNVPCouplingBlock", VECTOR, (2,), split_len=2),
    "glow": lambda: coupling("GLOWCouplingBlock", IMAGE, clamp_activation="TANH"),
    "gin": lambda: coupling("GINCouplingBlock", VECTOR),
    "one-sided": lambda: coupling("AffineCouplingOneSided", VECTOR, clamp_activation="SIGMOID"),
    "conditional-affine": lambda: coupling("ConditionalAffineTransform", VECTOR, (2,), (1,)),
    "permutation": lambda: Fm.PermuteRandom([IMAGE], seed=1),
    "linear": lambda: Fm.FixedLinearTransform([VECTOR], M=torch.randn(6, 6), b=torch.randn(6)),
    "linear-no-offset": lambda: Fm.FixedLinearTransform([VECTOR], M=torch.randn(6, 6)),
    "1x1": lambda: Fm.Fixed1x1Conv([IMAGE], M=torch.randn(4, 4)),
    "sigmoid": lambda: Fm.InvertibleSigmoid([VECTOR]),
    "sigmoid-image": lambda: Fm.InvertibleSigmoid([IMAGE]),
    "split": lambda: Fm.Split([IMAGE], section_sizes=[1, 3]),
    "split-height": lambda: Fm.Split([IMAGE], n_sections=3, dim=1),
    "split-channel": lambda: Fm.SplitChannel([IMAGE]),
    "concat": lambda: Fm.Concat([(1, 4, 4), (3, 4, 4)]),
    "concat-channel": lambda: Fm.ConcatChannel([(1, 4, 4), (3, 4, 4)]),
    "irevnet-down": lambda: Fm.IRevNetDownsampling([IMAGE]),
    "irevnet-down-legacy": lambda: Fm.IRevNetDownsampling([IMAGE], legacy_backend=True),
    "irevnet-up": lambda: Fm.IRevNetUpsampling([IMAGE]),
    "haar-down": lambda: Fm.HaarDownsampling([IMAGE], rebalance=0.7),
    "haar-down-by-wavelet": lambda: Fm.HaarDownsampling([IMAGE], order_by_wavelet=True, rebalance=0.7),
    "haar-up": lambda: Fm.HaarUpsampling([IMAGE], rebalance=0.7),
    "haar-up-by-wavelet": lambda: Fm.HaarUpsampling([IMAGE], order_by_wavelet=True),
    "flatten": lambda: Fm.Flatten([IMAGE]),
    "reshape": lambda: Fm.Reshape([IMAGE], output_dims=(8, 8)),
    "mixture": lambda: Fm.GaussianMixtureModel([(3,)], [(2,), (2, 3), (2, 6), ()]),
    "sequence": lambda: sequence((Fm.AllInOneBlock, {"subnet_constructor": dense})),
    "sequence-of-corrected": lambda: sequence(*parts(), dims=IMAGE),
    "graph": lambda: graph((Fm.RNVPCouplingBlock, {"subnet_constructor": dense})),
    "graph-of-corrected": lambda: graph(*parts(), dims=IMAGE),
}
# Of the main branch; release 0.2 has no splines.
if hasattr(Fm, "RationalQuadraticSpline"):
    MODULES |= {
        "linear-spline": lambda: coupling("LinearSpline", VECTOR, (2,), bins=3),
        "spline": lambda: coupling("RationalQuadraticSpline", VECTOR, (2,), bins=3, identity_tails=True),
        "elementwise-spline": lambda: Fm.ElementwiseRationalQuadraticSpline([VECTOR], bins=3),
    }
REFUSED: dict[str, Callable[[], Any]] = {
    "IResNetLayer": lambda: Fm.IResNetLayer([VECTOR]),
    "OrthogonalTransform": lambda: Fm.OrthogonalTransform([VECTOR]),
    "InvAutoFC": lambda: Fm.InvAutoFC([VECTOR]),
    "InvAutoConv2D": lambda: Fm.InvAutoConv2D([IMAGE]),
    "HouseholderPerm": lambda: Fm.HouseholderPerm([VECTOR], [(6, 2)], n_reflections=2),
}


@torch.no_grad()
def build(name: str) -> tuple[InvertibleModule, Any, Any, Any]:
    """A net of ours around FrEIA's module, away from its start, a copy of that module alone, a state, a condition."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - FrEIA draws its permutations from numpy's global generator
    with warnings.catch_warnings(action="ignore"):
        module = MODULES[name]().double()
    for part in module.modules():
        if isinstance(part, Fm.ActNorm):
            part((torch.randn(8, *IMAGE),))  # starts from this
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = as_state([torch.randn(2, *shape) for shape in shapes(module)])
    condition = as_state([torch.randn(2, *shape) for shape in module.dims_c])
    if name == "mixture":
        condition = (*condition[:3], torch.tensor([1, 0]))  # which component each sample belongs to
    alone = copy.deepcopy(module)
    net: InvertibleModule = FreiaModule(module)
    if isinstance(x, Tensor) and name != "mixture":
        net = Sequential(AdditiveCoupling(x.shape[1], dense if x.ndim == 2 else subnet(2)), net)
    return net, alone, x, condition


def shapes(module: Any) -> list[tuple[int, ...]]:
    """Of the state; upsamplings declare their output, others one shape without the list."""
    if isinstance(module, Fm.IRevNetUpsampling | Fm.HaarUpsampling):
        return [IMAGE]
    dims = module.dims_in
    return [tuple(dims)] if isinstance(dims[0], int) else [tuple(shape) for shape in dims]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_class_is_here() -> None:
    built = {type(construct()) for construct in (*MODULES.values(), *REFUSED.values())}
    assert built >= {getattr(Fm, name) for name in Fm.__all__ if name != "InvertibleModule"}


def call(net: InvertibleModule, method: str, x: Any, condition: Any) -> Any:
    return getattr(net, method)(x) if condition is None else getattr(net, method)(x, condition)


def loss_of(y: Any, logdet: Tensor | None) -> Tensor:
    parts = (*tensors_of(y), *tensors_of(logdet))
    return torch.stack([((part + 0.3) ** 3).sum() for part in parts]).sum()


def autograds(net: InvertibleModule, method: str, x: Any, condition: Any) -> tuple[Any, Tensor | None]:
    """Output, and log-determinant of its Jacobian, both by plain autograd."""
    direction = method.removesuffix("_and_logdet")
    y = call(net, direction, x, condition)
    if direction == method:
        return y, None
    sizes = [part[0].numel() for part in tensors_of(x)]

    def flat(values: Tensor) -> Tensor:
        pieces = zip(values.split(sizes, dim=1), tensors_of(x), strict=True)
        state = as_state([piece.reshape(part.shape) for piece, part in pieces])
        return torch.cat([part.flatten(1) for part in tensors_of(call(net, direction, state, condition))], dim=1)

    values = torch.cat([part.flatten(1) for part in tensors_of(x)], dim=1)
    jacobian = torch.autograd.functional.jacobian(flat, values, create_graph=True)
    return y, torch.stack([torch.linalg.slogdet(jacobian[b, :, b]).logabsdet for b in range(2)])


def results(net: InvertibleModule, run: Callable[..., Any], x: Any, condition: Any) -> dict[str, Tensor | None]:
    """Outputs, and gradients of all parameters, states and conditions."""
    net = copy.deepcopy(net)
    leaves = [part.clone().requires_grad_() for part in tensors_of(x)]
    steering = [p.clone().requires_grad_(p.is_floating_point()) for p in tensors_of(condition)]
    state = as_state([leaf * 1.0 for leaf in leaves])
    y, logdet = run(net, state, as_state(steering))
    values = [part.detach().clone() for part in (*tensors_of(y), *tensors_of(logdet))]
    loss_of(y, logdet).backward()
    # Nobody has written to what the caller holds.
    for held, value in zip((*tensors_of(y), *tensors_of(state)), (*values[: len(tensors_of(y))], *leaves), strict=True):
        assert torch.equal(held, value)
    found: dict[str, Tensor | None] = {f"output {i}": value for i, value in enumerate(values)}
    found |= {f"input {i}": leaf.grad for i, leaf in enumerate([*leaves, *steering])}
    return found | {key: parameter.grad for key, parameter in net.named_parameters()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MODULES)
def test_values_and_gradients_are_plain_autograds_under_every_policy(name: str, method: str) -> None:
    net, _, x, condition = build(name)
    if method.startswith("inverse"):
        with torch.no_grad():
            x = call(net, "forward", x, condition)

    def run(net: InvertibleModule, x: Any, condition: Any) -> tuple[Any, Tensor | None]:
        result = call(net, method, x, condition)
        return result if method.endswith("logdet") else (result, None)

    expected = results(net, lambda *arguments: autograds(arguments[0], method, *arguments[1:]), x, condition)
    for policy in POLICIES:
        set_backprop(net, policy)
        found = results(net, run, x, condition)
        for key, value in expected.items():
            gradient = found[key]
            if value is None or gradient is None:
                # memcnn gives a condition that nothing depends on a gradient of zeros.
                assert gradient is value or (policy == "memcnn" and key.startswith("input")), (policy, key)
                continue
            torch.testing.assert_close(gradient, value, rtol=TOLERANCE, atol=TOLERANCE, msg=f"{policy}: {key}")


@pytest.mark.parametrize("name", MODULES)
def test_the_map_is_freias_and_its_inverse_undoes_it(name: str) -> None:
    net, alone, x, condition = build(name)
    conditions = {"c": list(tensors_of(condition))} if condition is not None else {}
    with torch.no_grad():
        y = call(net, "forward", x, condition)
        inner = net[0](x) if isinstance(net, Sequential) else x
        if "corrected" not in name:  # these fail in FrEIA
            # That of the main branch takes no tuple.
            state = inner if isinstance(alone, Ff.SequenceINN) else tensors_of(inner)
            expected, _ = alone(state, rev=False, jac=True, **conditions)
            expected = (expected,) if isinstance(expected, Tensor) else tuple(expected)
            for part, value in zip(tensors_of(y), expected, strict=True):
                assert torch.equal(part, value)
        back = call(net, "inverse", y, condition)
    for part, value in zip(tensors_of(back), tensors_of(x), strict=True):
        torch.testing.assert_close(part, value, rtol=0, atol=TOLERANCE)


def test_a_module_may_be_wrapped_by_itself_and_in_its_net() -> None:
    net, x = sequence(*parts(), dims=IMAGE), torch.randn(2, *IMAGE)
    whole = FreiaModule(net)
    expected, logdet = whole.forward_and_logdet(x)
    alone = [FreiaModule(part) for part in net.module_list]
    torch.testing.assert_close(Sequential(*alone)(x), expected)
    for found, value in zip(whole.forward_and_logdet(x), (expected, logdet), strict=True):
        torch.testing.assert_close(found, value, rtol=0, atol=0)


@pytest.mark.parametrize("policy", POLICIES)
def test_actnorm_starts_from_its_first_batch_under_every_policy(policy: str) -> None:
    x = 3 * torch.randn(16, *IMAGE) + 1
    net = Sequential(FreiaModule(Fm.ActNorm([IMAGE])), FreiaModule(coupling("GLOWCouplingBlock", IMAGE)))
    set_backprop(net, policy)
    leaf = x.clone().requires_grad_()
    y = net[0](x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4))
    torch.testing.assert_close(y.std((0, 2, 3)), torch.ones(4))
    net(leaf * 1.0).sum().backward()
    expected = x.clone().requires_grad_()
    set_backprop(net, "stored")
    net(expected).sum().backward()
    torch.testing.assert_close(leaf.grad, expected.grad)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_exact_bijection_is_refused(name: str) -> None:
    module = REFUSED[name]()
    with pytest.raises(TypeError, match=f"expected a bijection with an exact inverse, got FrEIA's {name}: .* use"):
        FreiaModule(module)
    if name != "HouseholderPerm":
        inside = sequence((type(module), {}), dims=shapes(module)[0])
        with pytest.raises(TypeError, match=name):
            FreiaModule(inside)


@pytest.mark.parametrize("dims", [VECTOR, IMAGE])
def test_a_residual_block_takes_the_weights_of_an_iresnet_layer(dims: tuple[int, ...]) -> None:
    layer = Fm.IResNetLayer([dims]).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(0.5)
    block = ResidualBlock(dims[0], lambda *_: layer.residual)
    x = torch.randn(2, *dims)
    with torch.no_grad():
        torch.testing.assert_close(block(x), layer((x,), jac=False)[0][0], rtol=0, atol=1e-12)
