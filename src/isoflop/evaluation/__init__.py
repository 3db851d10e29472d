"""Held-out loss by routing decision; bits per byte; what routing does.

`measure` lies in `isoflop.evaluation.measuring`: its intervals need `fit`, which training should
not wait to load.
"""

from isoflop.evaluation.loss import control_noise, evaluate, token_losses
