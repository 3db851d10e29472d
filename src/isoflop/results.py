"""A study's results as Python has them: data frames, charts, and how a notebook shows them."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from isoflop.config import RunConfig, Study
from isoflop.config import load as config_files
from isoflop.sweep.ledger import Folders, study_in

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

    from isoflop.report.analysis import Analysis
    from isoflop.report.blocks import Section
    from isoflop.report.scaling import ScalingAnalysis


@dataclass(frozen=True)
class StudyResults:
    """What the runs of a study show so far, analysed when it is first asked for."""

    study: Study
    folders: Folders

    @cached_property
    def analysis(self) -> Analysis | ScalingAnalysis:
        """Everything that a page is made from: fits, minima, verdicts.

        Raises:
            ValueError: no run of the study has a record.
        """
        from isoflop.report.page import analysed
        from isoflop.sweep.report import evidence_of

        study, evidence = evidence_of(self.study, self.folders, Path(f"{self.study.name}.toml"))
        return analysed(study, evidence)

    @cached_property
    def _sections(self) -> list[Section]:
        from isoflop.report.sections import sections

        return list(sections(self.analysis))

    @property
    def runs(self) -> pd.DataFrame:
        """A row for each run: variant, seed, parameters, FLOPs, losses in nats per token."""
        return self.analysis.runs_table()

    @property
    def figures(self) -> dict[str, alt.Chart]:
        """The page's figures by name, as charts that a notebook draws."""
        import altair as alt

        drawn = [figure for section in self._sections for figure in section.figures()]
        return {
            one.name: alt.Chart.from_dict(one.spec(one.picture_width), validate=False)
            for one in drawn
        }

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The page's tables of findings by name, in full precision."""
        told = [table for section in self._sections for table in section.tables()]
        return {one.csv: one.data for one in told if one.csv and len(one.data)}

    @property
    def answer(self) -> str:
        """Who wins, by how much, and how sure that is."""
        from isoflop.report.page import lede

        return lede(self.analysis)

    def _repr_html_(self) -> str:
        name, rows = html.escape(self.study.name), self.runs
        tables = ", ".join(map(html.escape, self.tables))
        names = [figure.name for section in self._sections for figure in section.figures()]
        return (
            f"<h3>{name}</h3><p>{html.escape(self.answer)}</p><p>{len(rows)} runs: <code>.runs"
            f"</code>; figures: {', '.join(map(html.escape, names))}; tables: {tables}</p>"
        )


def load(path: str | os.PathLike[str]) -> StudyResults | Study | RunConfig:
    """Return a study's results from its folder, or what a TOML or JSON file describes.

    Of `runs/NAME` records in `results` are taken up, as on the command line.

    Args:
        path: `runs/NAME`, `results/NAME`, or a file of a study or a run.

    Raises:
        ValueError: the folder holds no study, or the file describes none; in one line.
    """
    folder = Path(path)
    return StudyResults(*study_in(folder)) if folder.is_dir() else config_files.load(path)
