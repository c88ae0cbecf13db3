"""A flow that somebody has built, tried on noise before anything is made of it."""

from __future__ import annotations

import torch

from isingflow.errors import InvalidInput, InvalidTransform
from isingflow.flows.base import Flow, checked

SAMPLES = 4


def check_maps(flow: Flow, shape: tuple[int, ...], *, seed: int = 0) -> None:
    """Refuse a flow on which nothing can be trained, with the map that is to blame.

    Args:
        flow: is left as it was.
        shape: that its fields must have.
        seed: of the noise.

    Raises:
        InvalidInput: fields of another shape, or no parameters.
        InvalidTransform: a map gives what is no field and log-determinant, or is not finite, for standard normal noise.

    Example:
        >>> check_maps(Flow((4,), []), (4,))
        Traceback (most recent call last):
        isingflow.errors.InvalidInput: the flow has no parameters to train
    """
    if flow.shape != shape:
        raise InvalidInput(f"the flow has fields of shape {flow.shape}, the target of shape {shape}")
    if not any(parameter.requires_grad for parameter in flow.parameters()):
        raise InvalidInput("the flow has no parameters to train")
    training = flow.training
    flow.eval()
    try:
        with torch.no_grad():
            x = flow.noise(SAMPLES, torch.Generator(flow.device).manual_seed(seed))
            for place, transform in enumerate(flow.transforms, 1):
                x, logdet = checked(transform, transform(x), x, 2)
                for what, values in (("fields", x), ("log-determinants", logdet)):
                    if not bool(torch.isfinite(values).all()):
                        name = f"{type(transform).__name__}, map {place} of {len(flow.transforms)} of the flow"
                        raise InvalidTransform(f"{name}: {what} are not finite for standard normal noise")
    finally:
        flow.train(training)
