"""The optimiser: one parameter group for each kind of parameter, and its state by parameter name."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from mpqyolo.core.errors import CheckpointError
from mpqyolo.train.recipe import OptimiserPart


def make_optimiser(model: nn.Module, kinds: Mapping[str, str], part: OptimiserPart) -> Optimizer:
    """Groups by kind: "weight" decays; "latent", "norm" and "scale" do not; `set_rate` sets their rates.

    kinds: parameter name -> kind (quantize.apply.parameter_kind). Latent 1-bit weights do not decay because only their sign
    counts: decay would pull them to zero and make them flip.
    """
    groups: dict[str, dict] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = groups.setdefault(kinds[name], {"params": [], "names": [], "kind": kinds[name], "lr": part.lr})
            group["params"].append(parameter)
            group["names"].append(name)
            group["weight_decay"] = part.weight_decay if kinds[name] == "weight" else 0.0
    if part.kind == "sgd":
        return SGD(groups.values(), lr=part.lr, momentum=part.momentum, nesterov=part.momentum > 0, fused=True)
    return AdamW(groups.values(), lr=part.lr, betas=(part.momentum, 0.999), fused=True)


def set_rate(optimiser: Optimizer, rate: float, part: OptimiserPart, trained: Collection[str]) -> None:
    """Give every group its share of the rate; kinds that are not trained get 0, which also stops their decay."""
    shares = {"scale": part.scale_lr, "latent": part.latent_lr}
    for group in optimiser.param_groups:
        group["lr"] = rate * shares.get(group["kind"], 1.0) if group["kind"] in trained else 0.0


def optimiser_state(optimiser: Optimizer) -> dict[str, Tensor]:
    """The state as `parameter name/key` -> tensor; parameters that never had a gradient have none."""
    return {
        f"{name}/{key}": value
        for group in optimiser.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        for key, value in optimiser.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimiser_state(optimiser: Optimizer, state: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_state` gave. Raises CheckpointError for a parameter that the optimiser does not have."""
    parameters = {n: p for group in optimiser.param_groups for n, p in zip(group["names"], group["params"], strict=True)}
    optimiser.state.clear()
    for full, value in state.items():
        name, _, key = full.rpartition("/")
        if name not in parameters:
            raise CheckpointError(f"the checkpoint has optimiser state for '{name}', which this model does not train")
        parameter = parameters[name]
        # The state takes the parameter's memory layout, as it had when the optimiser made it.
        like = parameter if value.shape == parameter.shape else value
        place = torch.empty_like(like, dtype=value.dtype, device=parameter.device, requires_grad=False)
        optimiser.state[parameter][key] = place.copy_(value)
