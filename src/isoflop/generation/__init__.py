"""Key-value cache, samplers and per-token routing: a model run a token at a time."""

from isoflop.generation.cache import BlockCache
from isoflop.generation.engine import Engine, nominal_share
from isoflop.generation.generate import Continuation, Token, generate, stream
from isoflop.generation.sampling import GREEDY, Sampling, probabilities
from isoflop.generation.whole import WholePasses, engine_for
