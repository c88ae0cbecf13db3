"""A run on data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import msgspec
import torch

from isingflow.architectures.base import Domain
from isingflow.architectures.build import AnyFlowConfig, build_density_flow
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.start import StartOfData, best_start, blank_start, fitted_start
from isingflow.datasets.spaces import Pixels
from isingflow.errors import InvalidInput
from isingflow.flows import Flow
from isingflow.runs.base import Run, check_training, options_of
from isingflow.runs.data_presets import data_presets, suited
from isingflow.runs.presets import find_preset, shortened
from isingflow.runs.settings import TrainingConfig
from isingflow.runtime.checks import shown
from isingflow.runtime.settings import ByHand, Count, CountFromZero, Depth, Name, Seed, Text

if TYPE_CHECKING:
    from isingflow.datasets import Dataset


class DensityConfig(Run, frozen=True, tag="data"):
    """A flow on data: everything that defines the run.

    Attributes:
        data: name of the data set, see `datasets.load`.
        path: of a table's file, or the name of a bundled table; None for other data.
        dimension: of a sample.
        start: what is fitted to the data in closed form before the flow is trained, see `architectures.start`.
        levels, image_width: of images; 0 for other data.
        settings: what of `flow` and `training` is not the preset's own, by name, see `overrides`.
        columns: what the columns are called; empty where they have no names.
        channels: planes of an image.

    Example:
        >>> from isingflow.datasets import load
        >>> config = DensityConfig.from_preset("quick", load("moons"), flow="ot")
        >>> DensityConfig.from_dict(config.to_dict()) == config
        True
    """

    kind: ClassVar[str] = "data"
    on: ClassVar[str] = "data"

    data: Name
    path: Text | None
    dimension: Count
    start: StartOfData
    levels: CountFromZero
    image_width: CountFromZero
    preset: Text
    seed: Seed = 0
    flow: AnyFlowConfig = FlowConfig()
    training: TrainingConfig = TrainingConfig()
    settings: ByHand = msgspec.field(default_factory=dict)
    columns: tuple[Text, ...] = ()
    channels: Depth = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_training(self, "force_matching", "bounds", "gradient", "coarse")
        if (self.path is not None) != (self.data == "tabular"):
            raise InvalidInput(f"data {self.data!r} with path {shown(self.path)}: tables have a path, and nothing else")
        if self.start == "copula" and self.levels < 2:
            raise InvalidInput(
                f"levels is {self.levels}: a copula of marginal histograms needs grey levels, at least 2; "
                "start from gaussian"
            )
        if self.columns and len(self.columns) != self.dimension:
            raise InvalidInput(f"columns has {len(self.columns)} names of {self.dimension} columns")
        if self.image_width and self.dimension % (self.image_width * self.channels):
            raise InvalidInput(
                f"dimension is {self.dimension} and image_width {self.image_width}: "
                f"images in rows of {self.image_width} pixels, not a whole number of them"
            )

    def __str__(self) -> str:
        return f"{self.data if self.path is None else self.path} in {self.dimension} dimensions"

    @property
    def sample(self) -> tuple[str, tuple[int, ...]]:
        """Points of model space."""
        return "float32", (self.dimension,)

    @property
    def domain(self) -> Domain:
        """What the flow is built for."""
        return Domain.of_data(self.dimension, self.image_width, self.channels)

    def data_set(self, root: Path | None = None) -> Dataset:
        """The data of the run, loaded."""
        from isingflow import datasets

        return datasets.load(self.data, path=self.path, root=root, seed=self.seed)

    def new_flow(self, data: Dataset | None = None) -> Flow:
        """The untrained flow.

        Args:
            data: what its start is fitted to; without it, the flow is one to load a checkpoint into.

        Raises:
            InvalidInput: the architecture or the start is not possible for these data.
        """
        fitted = (
            blank_start(self.start, self.dimension, self.levels)
            if data is None
            else fitted_start(data, self.start, torch.Generator().manual_seed(self.seed))
        )
        return build_density_flow(self.domain, self.flow, fitted, **options_of(self))

    @classmethod
    def from_preset(
        cls,
        preset: str,
        data: Dataset,
        *,
        path: str | None = None,
        start: StartOfData | None = None,
        flow: str = FlowConfig.kind,
        seed: int = 0,
        iterations: int | None = None,
    ) -> Self:
        """The configuration of a preset for a data set.

        Args:
            preset: its name.
            data: as loaded, with this seed.
            path: of a table.
            start: see `architectures.start`; `best_start` of the data if not given.
            flow: kind of flow, "monge-ampere", "ot" or "convex"; of images also "convex-image".
            seed: of the run, and of the split of the data.
            iterations: of training, if not the preset's own.

        Raises:
            InvalidInput: unknown flow or preset, or iterations below 1.
        """
        found = find_preset(data_presets(data.name, data.dimension, data.image_shape is not None), flow, preset)
        image_width = data.image_shape[1] if data.image_shape else 0
        return cls(
            "tabular" if path is not None else data.name,
            path,
            data.dimension,
            start or found.start or best_start(data),
            data.space.levels if isinstance(data.space, Pixels) else 0,
            image_width,
            preset,
            seed,
            found.flow.fitted(Domain.of_data(data.dimension, image_width, data.channels)),
            suited(shortened(found.training, iterations), len(data.train)),
            columns=data.columns,
            channels=data.channels,
        )
