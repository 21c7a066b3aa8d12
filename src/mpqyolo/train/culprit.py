"""Which layer it was, when numbers went wrong."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn


def culprit(model: nn.Module, images: Tensor, precision: AbstractContextManager) -> str:
    """The first layer whose parameters, or else whose output, are not finite."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return f"parameter '{name}'"
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not found and not output.isfinite().all():
                found.append(name)

        return hook

    hooks = [module.register_forward_hook(look(name)) for name, module in model.named_modules()]
    with torch.no_grad(), precision:
        model(images)
    for hook in hooks:
        hook.remove()
    return f"layer '{found[0]}'" if found else "the loss itself"
