from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from given import small_model
from isoflop.config import Recipe
from isoflop.model import build
from isoflop.training import initialise


@pytest.mark.parametrize("width", [32, 256])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_the_first_loss_is_near_that_of_guessing(width: int, tied: bool) -> None:
    model = build(small_model(width=width, head_width=16, hidden=2 * width, tied_embeddings=tied))
    initialise(model, Recipe(), seed=0)
    tokens = torch.randint(0, 256, (4, 65), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(tokens[:, :-1]).logits
    loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    # A tied model starts out expecting the token that it has just seen.
    assert math.log(256) - 0.1 < float(loss) < math.log(256) + (2 if tied else 1)
