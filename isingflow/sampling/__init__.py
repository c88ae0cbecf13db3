"""Markov chains of fields: Hamiltonian Monte Carlo, flow proposals, block Gibbs."""

from isingflow.sampling.chains import run_chains
from isingflow.sampling.fields import FieldDraws
from isingflow.sampling.files import Chains
from isingflow.sampling.hmc import HamiltonianMonteCarlo, latent, physical
from isingflow.sampling.metropolis import BlockGibbs, FlowMetropolis
from isingflow.sampling.sampler import Sampler, State

__all__ = [
    "BlockGibbs",
    "Chains",
    "FieldDraws",
    "FlowMetropolis",
    "HamiltonianMonteCarlo",
    "Sampler",
    "State",
    "latent",
    "physical",
    "run_chains",
]
