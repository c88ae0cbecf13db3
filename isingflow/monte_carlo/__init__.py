"""Monte Carlo of spins: clusters, single sites, parallel tempering."""

from isingflow.monte_carlo.ground_state import lowest_energy
from isingflow.monte_carlo.simulate import SAMPLERS, SpinChains, simulate, stream

__all__ = ["SAMPLERS", "SpinChains", "lowest_energy", "simulate", "stream"]
