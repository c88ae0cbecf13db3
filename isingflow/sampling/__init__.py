"""Markov chains of fields: Hamiltonian Monte Carlo, flow proposals, block Gibbs."""

from isingflow.sampling.chains import run_chains
from isingflow.sampling.fields import FieldDraws
from isingflow.sampling.files import Chains
from isingflow.sampling.hmc import HamiltonianMonteCarlo
from isingflow.sampling.latent import latent
from isingflow.sampling.metropolis import BlockGibbs, FlowMetropolis
from isingflow.sampling.physical import physical
from isingflow.sampling.sample import sample_chains
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
    "sample_chains",
]
