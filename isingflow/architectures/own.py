"""A flow that the user has built: a run knows the names of its maps and the numbers they learnt, not their code."""

from __future__ import annotations

from typing import ClassVar

import torch

from isingflow.architectures.base import Domain
from isingflow.errors import InvalidInput
from isingflow.flows import Flow, Transform
from isingflow.runtime.settings import Name, Settings


class OwnFlow(Settings, frozen=True, tag_field="kind", tag="own"):
    """The record of a flow of the user's own.

    Attributes:
        maps: names of the classes of its maps, from noise to x.
    """

    kind: ClassVar[str] = "own"
    title: ClassVar[str] = "own flow"
    whitened: ClassVar[bool] = False
    local: ClassVar[bool] = False
    last: ClassVar[bool] = False

    maps: tuple[Name, ...]

    @classmethod
    def of(cls, flow: Flow) -> OwnFlow:
        """The record of a flow."""
        return cls(tuple(type(transform).__name__ for transform in flow.transforms))

    def fitted(self, domain: Domain) -> OwnFlow:
        """The same for every domain."""
        return self

    def build(
        self, domain: Domain, generator: torch.Generator, *, jitter: float = 0.0, recompute: bool = False
    ) -> list[Transform]:
        """Only the user can.

        Raises:
            InvalidInput: always.
        """
        raise InvalidInput(
            f"the run has a flow of your own, made of {', '.join(self.maps)}: hand one of the same make, flow=..."
        )
