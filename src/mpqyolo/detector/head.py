"""Anchor-free prediction: one 1x1 convolution for distances and one for class logits a level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mpqyolo.detector.blocks import Predict
from mpqyolo.detector.maps import Maps

PRIOR_SCORE = 0.01  # focal-loss prior (Lin et al. 2017): the first loss is not dominated by background


class Head(nn.Module):
    """Codes at strides 8, 16, 32 -> Maps. Distances start at e^1 cells on every side."""

    def __init__(self, c_in: Sequence[int], classes: int) -> None:
        super().__init__()
        distances = [Predict(c, 4) for c in c_in]
        logits = [Predict(c, classes) for c in c_in]
        with torch.no_grad():
            for distance, logit in zip(distances, logits, strict=True):
                nn.init.normal_(distance.weight, std=0.01)
                nn.init.normal_(logit.weight, std=0.01)
                distance.bias.fill_(1.0)
                logit.bias.fill_(math.log(PRIOR_SCORE / (1 - PRIOR_SCORE)))
        self.distance, self.logit = nn.ModuleList(distances), nn.ModuleList(logits)

    def forward(self, features: tuple[Tensor, ...]) -> Maps:
        distance = tuple(predict(x) for predict, x in zip(self.distance, features, strict=True))
        logit = tuple(predict(x) for predict, x in zip(self.logit, features, strict=True))
        return Maps(distance, logit, tuple(features))
