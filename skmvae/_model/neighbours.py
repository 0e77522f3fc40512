"""InfoNCE between the codes of rows and of their partners in the graph of neighbours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .minibatch import Minibatch

# Similarities are cosines, divided by this.
TEMPERATURE = 0.5


def info_nce(mean: Tensor, partner_mean: Tensor, ids: Tensor, minibatch: Minibatch) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018) of posterior means (K, B, d): a scalar.

    Row i of the minibatch has the row number ids[0, i] and its partner ids[1, i]; ids are (2, B).
    With h the normalised codes of all components side by side, it is the mean over the rows that
    have a partner of -log softmax_j(h_i . h'_j / T) at j = i, and of the same from partners to
    rows. A row without a partner, which is its own, has no part in it, and no row is a negative of
    itself. Zero if no row has a partner. Where the minibatch is shared, this process's summand.
    """
    h, partner = (F.normalize(m.transpose(0, 1).flatten(1), dim=1) for m in (mean, partner_mean))
    all_h, all_partners = minibatch.gather(torch.stack([h, partner]))
    all_ids = minibatch.gather(ids)
    has_partner = all_ids[0] != all_ids[1]  # (n,)
    own = minibatch.rows
    targets = torch.arange(own.start, own.stop, device=h.device)
    losses = [
        F.cross_entropy(
            _logits(anchors, others, anchor_ids, other_ids, has_partner, targets),
            targets,
            reduction="none",
        )
        for anchors, others, anchor_ids, other_ids in (
            (h, all_partners, ids[0], all_ids[1]),
            (partner, all_h, ids[1], all_ids[0]),
        )
    ]
    n = has_partner.sum().clamp(min=1)
    return 0.5 * ((losses[0] + losses[1]) * has_partner[own]).sum() / n


def _logits(
    anchors: Tensor,
    others: Tensor,
    anchor_ids: Tensor,
    other_ids: Tensor,
    has_partner: Tensor,
    targets: Tensor,
) -> Tensor:
    """Similarities (b, n) with what is no negative left out; each row keeps its own partner."""
    is_same_row = anchor_ids.unsqueeze(1) == other_ids.unsqueeze(0)
    left_out = is_same_row | ~has_partner
    left_out = left_out.scatter(1, targets.unsqueeze(1), False)
    return (anchors @ others.T / TEMPERATURE).masked_fill(left_out, float("-inf"))
