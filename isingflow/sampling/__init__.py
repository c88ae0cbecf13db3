"""Samples of the Ising model: Markov chains of spins, of fields, and of fields through a flow."""

from isingflow.sampling.chains import Chains, run_chains
from isingflow.sampling.fields import FieldDraws
from isingflow.sampling.hmc import HamiltonianMonteCarlo, latent, physical
from isingflow.sampling.metropolis import BlockGibbs, FlowMetropolis
from isingflow.sampling.monte_carlo import SAMPLERS, SpinChains, simulate, stream
from isingflow.sampling.sampler import Sampler, State

__all__ = [
    "SAMPLERS",
    "BlockGibbs",
    "Chains",
    "FieldDraws",
    "FlowMetropolis",
    "HamiltonianMonteCarlo",
    "Sampler",
    "SpinChains",
    "State",
    "latent",
    "physical",
    "run_chains",
    "simulate",
    "stream",
]
