"""CP-Flow of images: what is built for which images, in which direction, and what is refused."""

import pytest
import torch
from msgspec.structs import replace

from isingflow import datasets
from isingflow.architectures.base import Domain
from isingflow.architectures.cp_image import ConvexImageFlowConfig
from isingflow.errors import InvalidInput
from isingflow.flows import ActNorm, ConvexFlow, Flow, Inverted, LanczosLogdet
from isingflow.lattice import Group
from isingflow.potentials import ConvexImagePotential
from isingflow.runs.config import DensityConfig, config_from_dict

SMALL = ConvexImageFlowConfig(blocks=3, resolutions=2, width=3, layers=1)
GREY, COLOUR = Domain.of_data(16, 4), Domain.of_data(12, 2, 3)


def built(flow: ConvexImageFlowConfig, domain: Domain, seed: int = 0) -> Flow:
    generator = torch.Generator().manual_seed(seed)
    return Flow(domain.shape, flow.fitted(domain).build(domain, generator))


def potentials(flow: Flow) -> list[ConvexImagePotential]:
    return [module.potential for module in flow.modules() if isinstance(module, ConvexFlow)]


@pytest.mark.parametrize(("domain", "shape"), [(GREY, (1, 4, 4)), (COLOUR, (3, 2, 2))], ids=["grey", "colour"])
def test_maps_take_turns_in_resolution(domain, shape):
    flow = built(SMALL, domain)
    assert [potential.squeeze for potential in potentials(flow)] == [1, 2, 1]
    assert {potential.image_shape for potential in potentials(flow)} == {shape}
    assert [type(part) for part in flow.transforms] == [Inverted, ActNorm] * 3
    assert all(isinstance(part.logdet, LanczosLogdet) for part in flow.modules() if isinstance(part, ConvexFlow))
    plain = built(replace(SMALL, normalised=False), domain)
    assert [type(part) for part in plain.transforms] == [Inverted] * 3


@pytest.mark.parametrize("domain", [GREY, COLOUR], ids=["grey", "colour"])
def test_there_and_back_with_the_determinant_of_autograd(domain):
    """With as many Lanczos steps as entries there is no error of quadrature, only that of the probes."""
    flow = built(replace(SMALL, probes=400, lanczos=domain.dimension), domain)
    x = torch.randn(4, *domain.shape, generator=torch.Generator().manual_seed(1))
    flow.inverse(x)  # sets the normalisations
    flow = flow.eval().double()
    with torch.no_grad():
        z, logdet = flow.inverse(x.double())
        again, _ = flow(z)
    torch.testing.assert_close(again, x.double(), rtol=1e-2, atol=1e-2)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow.inverse(x)[0].sum(0), x.double())
    exact = torch.linalg.slogdet(jacobian.transpose(0, 1)).logabsdet
    torch.testing.assert_close(logdet, exact, rtol=0.05, atol=0.5)


def test_resolutions_end_where_an_image_cannot_be_halved():
    assert replace(SMALL, resolutions=9).fitted(Domain.of_data(28 * 28, 28)).resolutions == 3
    assert replace(SMALL, resolutions=9).fitted(Domain.of_data(15, 5)).resolutions == 1
    assert SMALL.fitted(GREY) == SMALL


def test_other_fields_are_refused():
    for domain in (Domain.of_data(5), Domain((4, 4), Group((4, 4)))):
        with pytest.raises(InvalidInput, match="needs images"):
            SMALL.fitted(domain).build(domain, torch.Generator())
    with pytest.raises(InvalidInput, match="expected one of monge-ampere, ot, convex"):
        DensityConfig.from_preset("quick", datasets.load("moons"), flow="convex-image")
    with pytest.raises(InvalidInput, match="no divisor"):
        replace(SMALL, blocks=4, resolutions=4).build(GREY, torch.Generator())


@pytest.mark.parametrize("preset", ["quick", "accurate", "paper"])
def test_presets_for_digits_survive_json(preset):
    digits = datasets.load("tabular", path="digits")
    config = DensityConfig.from_preset(preset, digits, path="digits", flow="convex-image")
    assert config_from_dict(config.to_dict()) == config
    assert config.flow.kind == "convex-image" and config.start == ("normal" if preset == "paper" else "copula")
    assert potentials(config.new_flow())[0].image_shape == (1, 8, 8)


def test_channels_are_part_of_a_run():
    config = DensityConfig("cifar10", None, 3072, "normal", 256, 32, "quick", flow=SMALL, channels=3)
    assert config_from_dict(config.to_dict()) == config
    assert potentials(config.new_flow())[0].image_shape == (3, 32, 32)
    with pytest.raises(InvalidInput, match="not a whole number"):
        DensityConfig("cifar10", None, 3072, "normal", 256, 32, "quick", channels=5)
