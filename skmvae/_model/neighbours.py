"""InfoNCE between the codes of rows and of their partners in the graph of neighbours."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .minibatch import Minibatch

# Similarities are cosines, divided by this.
TEMPERATURE = 0.7

# Codes shorter than this are not drawn out to length 1: their gradient would grow without bound. A
# blank row has a code of 0 as long as the biases are 0.
_SHORTEST = 1e-3

# Most negatives of a row: with all rows of a minibatch, memory grows with the square of its size.
_MOST_NEGATIVES = 512


def info_nce(mean: Tensor, partner_mean: Tensor, ids: Tensor, minibatch: Minibatch) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018) of posterior means (K, B, d): a scalar.

    Row i of the minibatch has the row number ids[0, i] and its partner ids[1, i]; ids are (2, B).
    With h the normalised codes of a component, it is the mean over components and over the rows
    that have a partner of -log softmax_j(h_i . h'_j / T) at j = i, and of the same from partners to
    rows. A row without a partner, which is its own, has no part in it, and no row is a negative of
    itself. With more than 512 rows, j runs over i and every second or third row and so on. Zero if
    no two rows have partners. Where the minibatch is shared, this process's summand.
    """
    h, partner = (F.normalize(codes, dim=-1, eps=_SHORTEST) for codes in (mean, partner_mean))
    positive = (h * partner).sum(-1) / TEMPERATURE  # (K, B)
    has_partner = ids[0] != ids[1]  # (B,)
    n_pairs = minibatch.all_reduce(has_partner.sum())

    stride = math.ceil(minibatch.n_rows / _MOST_NEGATIVES)
    every = slice(-minibatch.start % stride, None, stride)
    some = minibatch.every(stride)
    codes, partner_codes = some.gather(torch.cat([h, partner])[:, every]).chunk(2)
    numbers = some.gather(ids[:, every])
    own = torch.arange(minibatch.start, minibatch.start + minibatch.size, device=h.device)
    is_own_pair = own.unsqueeze(1) == stride * torch.arange(some.n_rows, device=h.device)
    left_out = is_own_pair | (numbers[0] == numbers[1])

    losses = [
        _log_sum_exp(positive, anchors @ others.mT / TEMPERATURE, left_out | is_same_row) - positive
        for anchors, others, is_same_row in (
            (h, partner_codes, ids[0].unsqueeze(1) == numbers[1]),
            (partner, codes, ids[1].unsqueeze(1) == numbers[0]),
        )
    ]
    of_rows = 0.5 * (losses[0] + losses[1]).mean(0)
    return (of_rows * has_partner).sum() / n_pairs.clamp(min=1)


def _log_sum_exp(positive: Tensor, negatives: Tensor, left_out: Tensor) -> Tensor:
    """log(exp(positive) + sum_j exp(negatives_j)) over those kept: (K, B), (K, B, J) -> (K, B)."""
    kept = negatives.masked_fill(left_out, float("-inf"))
    return torch.cat([positive.unsqueeze(-1), kept], dim=-1).logsumexp(-1)
