"""Evaluate token weights of one canonical grid on any other grid of tokens.

A token-mixing layer is tied to its number of tokens. Here its parameters live on a canonical G x G
grid (plus the class token), and on a g x g grid the *function* is carried over: f_g = S . f . R,
where R resamples token fields from g to G and S from G to g. Both act along the token axis only, so
they merge into the weights once per step; the hidden width and all parameters, gradients and
optimizer moments keep their canonical shapes.

With the DCT resampler this is exact for band-limited fields, and the weighted LayerNorm statistics
of a coarse field equal those of its resampled version. The other resamplers only share the property
that their rows sum to one.

Legend: G canonical grid side, g actual grid side, N = 1 + G*G, n = 1 + g*g tokens, M hidden width.
"""

import contextlib
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffvit.errors import ConfigError

RESAMPLERS = ("dct", "area", "bilinear", "bicubic", "nearest")


class Resampling(NamedTuple):
    """The constants of one pair of grids.

    Attributes:
        to_canonical: R, (N, n); the class token is carried over unchanged, each row sums to one.
        from_canonical: S, (n, N); likewise.
        token_shares: (n, 1), sums to one; weights of the token LayerNorm's mean and variance. The
            class token keeps its canonical 1 / N, the patches share the rest.
    """

    to_canonical: Tensor
    from_canonical: Tensor
    token_shares: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """The type in which weights are resampled."""
        return self.to_canonical.dtype


class TokenMlpWeights(NamedTuple):
    """A token MLP as it is multiplied: fc1 (M, n), bias (M,), fc2 (n, M), bias (n,)."""

    fc1_weight: Tensor
    fc1_bias: Tensor
    fc2_weight: Tensor
    fc2_bias: Tensor


class TokenGrid:
    """A model's canonical grid, and a cache of resampling constants for other grids.

    The constants are neither parameters nor buffers: they are not in the state dict, not averaged,
    not broadcast, and not rounded when the model is cast to a narrower type.
    """

    def __init__(self, size: int, resampler: str) -> None:
        if resampler not in RESAMPLERS:
            known = ", ".join(RESAMPLERS)
            raise ConfigError(f"model.resampler={resampler} is not known; use one of {known}.")
        self.size = size
        self.resampler = resampler
        self._cache: dict[tuple[int, torch.device, torch.dtype], Resampling] = {}

    def resampling(self, grid_size: int, like: Tensor) -> Resampling | None:
        """Return the constants for a grid, or None for the canonical one.

        Args:
            grid_size: g, tokens along one side.
            like: A parameter of the model; gives the device and the type, which is float32 at
                least.
        """
        if grid_size == self.size:
            return None
        device, dtype = like.device, torch.promote_types(like.dtype, torch.float32)
        key = (grid_size, device, dtype)
        if key in self._cache:
            return self._cache[key]
        resampling: Resampling = self._create(*key)
        # A graph that is being compiled keeps the constants; caching them too would invalidate it.
        if not torch.compiler.is_compiling():
            self._cache[key] = resampling
        return resampling

    # torch.compile runs this while tracing and takes the result for a constant.
    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
    def _create(self, grid_size: int, device: torch.device, dtype: torch.dtype) -> Resampling:
        # Constants born in inference mode could not be used by a later training step.
        with torch.inference_mode(False), torch.no_grad():
            constants = create_resampling(grid_size, self.size, self.resampler)
            return Resampling(*(constant.to(device, dtype) for constant in constants))


def axis_matrix(source: int, target: int, resampler: str) -> Tensor:
    """Return the (target, source) matrix that resamples along one axis, float64; rows sum to one.

    Pixel centres are at half integers (align_corners=False). `bilinear` and `bicubic` widen their
    kernel where they shrink; `area` averages by overlap; `dct` keeps the min(source, target) lowest
    cosine frequencies.
    """
    if source == target:
        return torch.eye(source, dtype=torch.float64, device="cpu")
    if resampler == "dct":
        kept = min(source, target)
        analysis, synthesis = _cosine_basis(source)[:kept], _cosine_basis(target)[:kept]
        return math.sqrt(target / source) * synthesis.T @ analysis
    if resampler == "area":
        step = source / target
        edges = torch.arange(target + 1, dtype=torch.float64, device="cpu") * step
        cells = torch.arange(source + 1, dtype=torch.float64, device="cpu")
        upper = torch.minimum(edges[1:, None], cells[None, 1:])
        lower = torch.maximum(edges[:-1, None], cells[None, :-1])
        return (upper - lower).clamp_min(0) / step
    # F.interpolate has no one-dimensional antialiased form: each unit vector fills a two-row image.
    units = torch.eye(source, dtype=torch.float64, device="cpu")[:, None, None].expand(-1, 1, 2, -1)
    if resampler == "nearest":
        columns = F.interpolate(units, size=(2, target), mode="nearest-exact")
    else:
        columns = F.interpolate(
            units, size=(2, target), mode=resampler, align_corners=False, antialias=True
        )
    return columns[:, 0, 0].T.contiguous()


def create_resampling(grid_size: int, canonical_size: int, resampler: str) -> Resampling:
    """Build the constants between a g x g and the canonical G x G grid, float64 on the CPU.

    Both directions are separable over the two axes; tokens are in row-major order behind the class
    token.
    """
    num_patches, num_canonical = grid_size**2, canonical_size**2
    shares = torch.full(
        (1 + num_patches, 1),
        num_canonical / ((1 + num_canonical) * num_patches),
        dtype=torch.float64,
        device="cpu",
    )
    shares[0] = 1 / (1 + num_canonical)
    return Resampling(
        _with_class_token(axis_matrix(grid_size, canonical_size, resampler)),
        _with_class_token(axis_matrix(canonical_size, grid_size, resampler)),
        shares,
    )


def prepare_token_mlp(
    fc1: nn.Linear, fc2: nn.Linear, norm: nn.LayerNorm, resampling: Resampling | None
) -> TokenMlpWeights:
    """Fold the affine part of the LayerNorm into a token MLP, and carry both over to a grid.

    Folding is exact, so that scale and shift of `norm` (over N tokens) are never resampled; on the
    canonical grid it saves two passes over the activations. Computed in float32 at least whatever
    autocast says; returned in the parameters' type.

    Args:
        fc1: Linear layer over the N canonical tokens.
        fc2: Linear layer back to them.
        norm: The LayerNorm before fc1.
        resampling: The constants of the grid; None for the canonical one.
    """
    stored = fc1.weight.dtype
    precise = torch.promote_types(stored, torch.float32) if resampling is None else resampling.dtype
    with autocast_off(fc1.weight.device):
        fc1_weight, fc2_weight = fc1.weight.to(precise), fc2.weight.to(precise)
        fc1_bias = torch.addmv(fc1.bias.to(precise), fc1_weight, norm.bias.to(precise))
        fc2_bias = fc2.bias.to(precise)
        fc1_weight = fc1_weight * norm.weight.to(precise)
        if resampling is not None:
            fc1_weight = fc1_weight @ resampling.to_canonical
            fc2_weight = resampling.from_canonical @ fc2_weight
            fc2_bias = resampling.from_canonical @ fc2_bias
        weights = fc1_weight, fc1_bias, fc2_weight, fc2_bias
    return TokenMlpWeights(*(w.to(stored) for w in weights))


def standardize_tokens(fields: Tensor, resampling: Resampling | None, eps: float) -> Tensor:
    """Make each field zero-mean and unit-variance over the tokens, computing in float32 at least.

    Args:
        fields: (n, any); each column is one field of tokens.
        resampling: Gives the token shares off the canonical grid; None weighs all tokens alike.
        eps: Added to the variance.
    """
    wide = fields.to(torch.promote_types(fields.dtype, torch.float32))
    shares = None if resampling is None else resampling.token_shares
    standardized: Tensor = _Standardization.apply(wide, shares, eps)
    return standardized.to(fields.dtype)


class _Standardization(torch.autograd.Function):
    """(n, any) minus its mean over the first axis, divided by its deviation.

    With y = (x - mean) / deviation, shares a and an incoming gradient g, the gradient is
    (g - a (sum g + y sum g y)) / deviation. Written out, it costs two reductions and one pass;
    derived operation by operation it takes three times as many passes over the activations.
    """

    @staticmethod
    def forward(ctx: Any, fields: Tensor, shares: Tensor | None, eps: float) -> Tensor:
        centred = fields - _mean(fields, shares)
        # Not torch.var_mean, which takes four times as long over the outer axis on a CPU.
        scale = torch.rsqrt(_mean(centred.square(), shares) + eps)
        standardized = centred * scale
        ctx.save_for_backward(standardized, scale, shares)
        return standardized

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        standardized, scale, shares = ctx.saved_tensors
        total = torch.addcmul(
            gradient.sum(dim=0), standardized, (gradient * standardized).sum(dim=0)
        )
        if shares is None:
            rest = torch.sub(gradient, total, alpha=1 / len(total))
        else:
            rest = torch.addcmul(gradient, shares, total, value=-1)
        return rest * scale, None, None


def _mean(fields: Tensor, shares: Tensor | None) -> Tensor:
    """Average over the first axis, each token by its share."""
    return fields.mean(dim=0) if shares is None else (shares * fields).sum(dim=0)


def autocast_off(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Switch autocast off for a block; the meta device has none to switch off."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def _cosine_basis(size: int) -> Tensor:
    """Return the orthonormal DCT-II matrix (frequency, position), float64.

    Source: Strang, "The Discrete Cosine Transform", SIAM Review 41 (1999), section 3.
    """
    frequency = torch.arange(size, dtype=torch.float64, device="cpu")[:, None]
    position = torch.arange(size, dtype=torch.float64, device="cpu")[None] + 0.5
    basis = math.sqrt(2 / size) * torch.cos(math.pi / size * frequency * position)
    basis[0] /= math.sqrt(2)
    return basis


def _with_class_token(axis: Tensor) -> Tensor:
    """Apply an axis matrix to rows and columns of the grid, and leave the class token as it is."""
    rows, columns = axis.shape
    full = torch.zeros(1 + rows**2, 1 + columns**2, dtype=axis.dtype, device="cpu")
    full[0, 0] = 1
    full[1:, 1:] = torch.kron(axis, axis)
    return full
