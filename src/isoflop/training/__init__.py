"""The training loop, the parametrisation and the schedule."""

from isoflop.training.attending import fastest_attention
from isoflop.training.compiling import compiles_by_default, compiling_fault, has_compiler
from isoflop.training.environment import environment
from isoflop.training.loop import follow, load_model, reason_of, train
from isoflop.training.memory import keep_freed_memory, volunteer_for_the_oom_killer
from isoflop.training.optimisation.optimiser import Optimiser, rate_factor
from isoflop.training.optimisation.parametrisation import group_of, initialise
from isoflop.training.ranks import RANK_TIMEOUT, RankLost, joined
from isoflop.training.run import Interrupted, Run
from isoflop.training.speed import measure_speed, own_step, random_tokens
from isoflop.training.step import StepResult, Trainer
