"""The door for a transformer variant of one's own, and the variants that ship through it.

One Python file describes a variant, and a study names it:

    depth = { kind = "my_skip", from = "my_skip.py", capacity = 0.5 }

The file has

- `PART`: what it takes the place of, `attention`, `feed_forward`, `depth` or `block`;
- `Config`: a subclass of `Frozen`, whose fields are the other keys of that table;
- `build(config, model, block)`: the module for one block of the model, as `protocols` has it;
- `costs(config, model, block, tokens, convention)`: what it costs, as closed forms (`Costs`);
- with `PART = "depth"`, `processed(config, model, block, tokens, progress)`;

and where the defaults are not right

- `DECISIONS`: what a model with it is evaluated under, the headline first. `("every_token",)`, for
  what never looks ahead. What does so in training says `"top_k"` and a causal decision before it;
- `period(config)`: the blocks of a model come in multiples of it, so that each part of the
  variant has the same share at every size;
- `SCHEDULED = True`, of depth whose `processed` depends on `progress`.

SHA-256 of the file's text is part of a run's id, and the text is kept in the run's folder. It is to
be one file: of what it imports beside installed packages nothing is kept. Importing torch in its
functions, and not on top, spares `isoflop plan` seconds.
"""

from isoflop.config import Decision, Frozen, ModelConfig, Own, Part
from isoflop.config.own import own
from isoflop.variants.protocols import (
    Attention,
    Block,
    Costs,
    Depth,
    FeedForward,
    Inner,
    Role,
    State,
    Told,
    costs_of,
    made,
    period,
    processed,
    scheduled,
)
