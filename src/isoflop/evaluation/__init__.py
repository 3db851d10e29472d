"""Held-out loss by routing decision; bits per byte."""

from isoflop.evaluation.loss import control_noise, evaluate, token_losses

__all__ = ["control_noise", "evaluate", "token_losses"]
