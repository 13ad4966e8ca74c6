"""Gated PixelCNN over maps of codes, and sampling from it that computes nothing twice."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from micro_lib.core.progress import progress

UNKNOWN = -1  # in a map that is given in part


class GatedPixelCNN(nn.Module):
    """Logits of every code from those before it in reading order: two gated stacks without a blind spot.

    The vertical stack sees all rows above, the horizontal one the codes to the left and, through the vertical one, the
    rows above (van den Oord et al. 2016, Conditional Image Generation with PixelCNN Decoders, section 2.3, figure 2).
    Kernels need no masks: they hold just the weights that a mask would leave.

    Parameters
    ----------
    n_codes : int
        Number K of different codes.
    channels : int
        Width C of both stacks.
    layers : int
        The first looks 3 codes far, each further one 1 code.
    n_conditions : int
        Numbers that a map is conditioned on: phase fractions, or a one-hot class; 0 for none.
    dropout : float
        Share of the gated activations dropped in training.
    """

    def __init__(
        self, n_codes: int, *, channels: int = 64, layers: int = 12, n_conditions: int = 0, dropout: float = 0.0
    ):
        super().__init__()
        self.n_codes, self.channels, self.n_conditions = n_codes, channels, n_conditions
        self.embedding = nn.Embedding(n_codes, channels)
        self.layers = nn.ModuleList(Layer(channels, i == 0, n_conditions, dropout) for i in range(layers))
        self.head = nn.Sequential(nn.Conv2d(channels, 2 * channels, 1), nn.ReLU(), nn.Conv2d(2 * channels, n_codes, 1))

    def forward(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the logits of every code, each from the codes before it.

        Parameters
        ----------
        codes : torch.Tensor
            (B, H, W) int64 in [0, K).
        condition : torch.Tensor, optional
            (B, n_conditions) float32; needed if and only if the network has conditions.

        Returns
        -------
        torch.Tensor
            (B, K, H, W).

        Raises
        ------
        ValueError
            If the condition does not fit the network and the codes.
        """
        self.check_condition(condition, len(codes))
        vertical = horizontal = self.embedding(codes).permute(0, 3, 1, 2)  # (B, C, H, W)
        for layer in self.layers:
            vertical, horizontal = layer(vertical, horizontal, condition)
        return self.head(horizontal)

    def check_condition(self, condition: Tensor | None, batch: int) -> None:
        """Raise ValueError unless a condition is the one that this network needs for a batch of maps.

        Parameters
        ----------
        condition : torch.Tensor or None
            As for `forward`.
        batch : int
            Number of maps.
        """
        wanted = (batch, self.n_conditions) if self.n_conditions else None
        found = None if condition is None else tuple(condition.shape)
        if found != wanted:
            raise ValueError(f"the network needs a condition of shape {wanted}; found {found}")


class Layer(nn.Module):
    """One layer of both stacks.

    Parameters
    ----------
    channels, n_conditions, dropout
        As for `GatedPixelCNN`.
    first : bool
        Whether the inputs are the codes themselves: position (i, j) may not see its own, and in the vertical stack none
        of its row. What further layers see at a position is free of its code already.
    """

    def __init__(self, channels: int, first: bool, n_conditions: int, dropout: float):
        super().__init__()
        self.first, self.reach = first, 3 if first else 1
        taps = self.reach + (not first)
        self.vertical = nn.Conv2d(channels, 2 * channels, (taps, 2 * self.reach + 1))
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, taps))
        self.across = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)  # from the vertical to the horizontal stack
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)
        self.condition = nn.Linear(n_conditions, 4 * channels, bias=False) if n_conditions else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, vertical: Tensor, horizontal: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both stacks behind this layer, (B, C, H, W) each.

        Parameters
        ----------
        vertical, horizontal : torch.Tensor
            (B, C, H, W) float, the stacks before it; both the embedded codes for the first layer.
        condition : torch.Tensor or None
            (B, n_conditions) float32; None where there are no conditions.
        """
        reach, cut = self.reach, -int(self.first)  # padding by -1 cuts off the last row or column
        above = self.vertical(F.pad(vertical, (reach, reach, reach, cut)))  # (B, 2C, H, W)
        both = self.horizontal(F.pad(horizontal, (reach, cut))) + self.across(above)  # (B, 2C, H, W)
        if self.condition is not None:
            to_above, to_both = self.condition(condition)[..., None, None].chunk(2, 1)  # (B, 2C, 1, 1)
            above, both = above + to_above, both + to_both
        mixed = self.mix(self.dropout(gate(both, 1)))
        return self.dropout(gate(above, 1)), mixed if self.first else mixed + horizontal


def gate(x: Tensor, axis: int) -> Tensor:
    """Return the tanh of the first half of an axis times the sigmoid of the second.

    Parameters
    ----------
    x : torch.Tensor
        Of any shape, the axis of an even length.
    axis : int
        Half as long in the result.
    """
    values, gates = x.chunk(2, axis)
    return values.tanh() * gates.sigmoid()


@torch.inference_mode()
def sample(
    network: GatedPixelCNN,
    shape: tuple[int, int, int],
    *,
    generator: torch.Generator,
    condition: Tensor | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    given: Tensor | None = None,
) -> Tensor:
    """Draw maps of codes, or complete maps of which a part is given.

    Each row of the vertical stack and each code of the horizontal one is computed once, so a map costs about one
    forward pass, where a pass for every code would cost H * W. Dropout is off, whatever the network's mode. Under
    `torch.autocast` the vertical stack is computed in bfloat16, which pays for batches; single codes are too little
    work for it and stay in float32.

    Parameters
    ----------
    network : GatedPixelCNN
        On any device.
    shape : tuple of int
        (B, H, W); any height and width.
    generator : torch.Generator
        On the CPU, wherever the network is; gives B * H * W numbers.
    condition : torch.Tensor, optional
        (B, n_conditions) float32; needed if and only if the network has conditions.
    temperature : float
        Divides the logits; above 0.
    top_p : float
        Only the fewest codes that have this probability together are drawn; in (0, 1].
    given : torch.Tensor, optional
        (B, H, W) int64, `UNKNOWN` where a code is to be drawn. A code follows from those before it in reading order,
        so those given further down do not act on it.

    Returns
    -------
    torch.Tensor
        (B, H, W) int64 on the network's device.

    Raises
    ------
    ValueError
        If an argument is outside its range or does not fit the others.
    """
    _check_sampling(network, shape, temperature, top_p, given)
    reader = _Reader(network, shape, condition)
    device = network.embedding.weight.device
    codes = torch.full(shape, UNKNOWN) if given is None else given.clone()
    wanted = (codes == UNKNOWN).any(0).tolist()  # (H, W)
    codes, heights = codes.to(device), (1 - torch.rand(shape, generator=generator)).to(device)
    for i in progress(range(shape[1]), desc="sampling", unit="row"):
        reader.start_row(codes[:, i - 1] if i else None)
        row, height = codes[:, i].T.contiguous(), heights[:, i].T.contiguous()  # (W, B)
        for j in range(max((j for j, w in enumerate(wanted[i]) if w), default=-1) + 1):
            reader.step(j)
            if wanted[i][j]:
                drawn = draw(distribution(reader.logits(j), temperature, top_p), height[j])
                torch.where(row[j] == UNKNOWN, drawn, row[j], out=row[j])
            reader.put(j, row[j])
        codes[:, i] = row.T
    return codes


def _check_sampling(network, shape, temperature, top_p, given) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; it must be in (0, 1]")
    if given is None:
        return
    if tuple(given.shape) != tuple(shape):
        raise ValueError(f"maps of shape {tuple(shape)} are to be drawn; the given part has {tuple(given.shape)}")
    if given.min() < UNKNOWN or given.max() >= network.n_codes:
        raise ValueError(
            f"given codes must be in 0 to {network.n_codes - 1}, or {UNKNOWN} where one is to be drawn; "
            f"found {given.min()} to {given.max()}"
        )


def distribution(logits: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """Return the probabilities that codes are drawn with.

    Parameters
    ----------
    logits : torch.Tensor
        (B, K) float32.
    temperature, top_p
        As for `sample`.

    Returns
    -------
    torch.Tensor
        (B, K), each row with the sum 1.
    """
    probability = (logits / temperature).softmax(1)
    if top_p == 1:
        return probability
    ordered, order = probability.sort(1, descending=True)
    kept = ordered * (ordered.cumsum(1) - ordered < top_p)  # (B, K): those before it do not suffice
    return torch.zeros_like(kept).scatter_(1, order, kept / kept.sum(1, keepdim=True))


def draw(probability: Tensor, height: Tensor) -> Tensor:
    """Return the codes (B,) int64 at heights of the cumulated probabilities.

    A height of 0 is excluded, not 1: then no code of probability 0 is found, nor one behind the last.

    Parameters
    ----------
    probability : torch.Tensor
        (B, K) float, of each code; rows need not have the sum 1.
    height : torch.Tensor
        (B,) float in (0, 1].
    """
    cumulated = probability.cumsum(1)
    return torch.searchsorted(cumulated, height[:, None] * cumulated[:, -1:])[:, 0]


@torch.inference_mode()
def incremental_logits(network: GatedPixelCNN, codes: Tensor, condition: Tensor | None = None) -> Tensor:
    """Return what `GatedPixelCNN.forward` gives in evaluation mode, computed code by code as `sample` does.

    Parameters
    ----------
    network, codes, condition
        As for `GatedPixelCNN.forward`.

    Returns
    -------
    torch.Tensor
        (B, K, H, W) float32.
    """
    batch, height, width = codes.shape
    reader = _Reader(network, codes.shape, condition)
    logits = torch.empty(batch, network.n_codes, height, width, device=codes.device)
    for i in range(height):
        reader.start_row(codes[:, i - 1] if i else None)
        for j in range(width):
            reader.step(j)
            logits[:, :, i, j] = reader.logits(j)
            reader.put(j, codes[:, i, j])
    return logits


class _Reader:
    """A network that reads maps in order: `start_row`, then `step` and `put` for one column after the other."""

    def __init__(self, network: GatedPixelCNN, shape: tuple[int, int, int], condition: Tensor | None):
        batch, _, width = shape
        network.check_condition(condition, batch)
        self.embedding = network.embedding.weight
        self.layers = [_LayerReader(layer, batch, width, condition) for layer in network.layers]
        for layer, following in pairwise(self.layers):
            layer.outputs = following.inputs_of
        self.layers[-1].outputs = self.embedding.new_zeros(width, batch, network.channels).unbind()
        first, _, last = network.head
        self.head = [(m.bias, m.weight[:, :, 0, 0].T.contiguous()) for m in (first, last)]
        self.hidden, self.found = (self.embedding.new_zeros(batch, m.out_channels) for m in (first, last))

    def start_row(self, codes: Tensor | None) -> None:
        """Compute a row of the vertical stack from the codes (B, W) of the row above; None above the first."""
        vertical = None if codes is None else self.embedding[codes]  # (B, W, C)
        for layer in self.layers:
            vertical = layer.start_row(vertical)

    def step(self, column: int) -> None:
        """Compute a column of the horizontal stack, of which all codes to the left are known."""
        for layer in self.layers:
            layer.step(column)

    def logits(self, column: int) -> Tensor:
        """Return the logits (B, K) of a column after its `step`; the next call overwrites them."""
        (bias, weight), (last_bias, last_weight) = self.head
        torch.addmm(bias, self.layers[-1].outputs[column], weight, out=self.hidden)
        return torch.addmm(last_bias, self.hidden.relu_(), last_weight, out=self.found)

    def put(self, column: int, codes: Tensor) -> None:
        """Tell the codes (B,) of a column."""
        self.layers[0].inputs_of[column].copy_(self.embedding[codes])


class _LayerReader:
    """One layer, channels last, with the inputs it still needs.

    Its buffers never move, so the views of every column are made once; products are written into them by `out=`, which
    also keeps autocast from single codes.
    """

    def __init__(self, layer: Layer, batch: int, width: int, condition: Tensor | None):
        self.first, self.reach = layer.first, layer.reach
        zeros, channels = layer.mix.weight.new_zeros, layer.mix.in_channels
        (height, side), taps = layer.vertical.kernel_size, layer.horizontal.kernel_size[1]
        self.vertical = layer.vertical.weight.permute(0, 2, 3, 1).flatten(1), layer.vertical.bias  # (2C, height side C)
        self.across = layer.across.weight[:, :, 0, 0], layer.horizontal.bias  # (2C, 2C)
        self.horizontal = layer.horizontal.weight[:, :, 0].permute(2, 1, 0).flatten(0, 1).contiguous()  # (taps C, 2C)
        self.mix = layer.mix.weight[:, :, 0, 0].T.contiguous()  # (C, C)
        self.offsets = (0, 0) if condition is None else layer.condition(condition)[:, None].chunk(2, 2)  # (B, 1, 2C)
        self.rows = zeros(batch, height, width + side - 1, channels)
        self.window = self.rows.unfold(2, side, 1).permute(0, 2, 1, 4, 3)  # (B, W, height, side, C)
        inputs = zeros(batch, self.reach + width, channels)  # begin `reach` columns before the first
        self.inputs_of = inputs[:, self.reach :].unbind(1)
        self.windows = [inputs[:, j : j + taps].flatten(1) for j in range(width)]  # (B, taps C)
        self.from_vertical = zeros(batch, width, 2 * channels)
        self.columns = self.from_vertical.unbind(1)
        self.both = zeros(batch, 2 * channels)
        self.values = self.both[:, :channels]
        self.outputs: Sequence[Tensor] = ()  # (B, C) per column: where the next layer wants them

    def start_row(self, vertical: Tensor | None) -> Tensor:
        """Take the next row (B, W, C) of inputs, if there is one, and return that of outputs."""
        if vertical is not None:
            self.rows[:, :-1] = self.rows[:, 1:].clone()
            self.rows[:, -1, self.reach : -self.reach] = vertical
        to_above, to_both = self.offsets
        above = F.linear(self.window.flatten(2), *self.vertical)  # (B, W, 2C)
        self.from_vertical.copy_(F.linear(above, *self.across) + to_both)
        return gate(above + to_above, 2)

    def step(self, column: int) -> None:
        """Compute the outputs of a column."""
        torch.addmm(self.columns[column], self.windows[column], self.horizontal, out=self.both)
        self.values.tanh_()
        gated = F.glu(self.both, 1)  # (B, C)
        if self.first:
            torch.mm(gated, self.mix, out=self.outputs[column])
        else:
            torch.addmm(self.inputs_of[column], gated, self.mix, out=self.outputs[column])
