"""The subcommands, in the order of `isoflop --help`.

Each reads its study, calls one room and shows what came back. Rooms are imported inside, so that
`isoflop --help` starts without torch.
"""

from __future__ import annotations

from tyro.extras import SubcommandApp

from isoflop.cli.bench_commands import bench
from isoflop.cli.fit_commands import fit, predict
from isoflop.cli.model_commands import evaluate, sample, train
from isoflop.cli.study_commands import (
    clean,
    costs,
    export,
    init,
    plan,
    rebuild,
    report,
    run,
    search,
    status,
)

app = SubcommandApp()
app.command(init)
app.command(costs)
app.command(plan)
app.command(train)
app.command(name="eval")(evaluate)
app.command(sample)
app.command(run)
app.command(search)
app.command(status)
app.command(report)
app.command(fit)
app.command(predict)
app.command(export)
app.command(clean)
app.command(rebuild)
app.command(bench, name="bench", help="Measure throughput on this machine.")
