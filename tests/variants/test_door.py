"""A variant is one Python file that a study names: found, checked, part of the run id, and kept."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from own_runs import FILES, named, run_of, shipped

from isoflop.cli import main
from isoflop.config import RunConfig
from isoflop.config.load import load_study
from isoflop.config.own import of_file, own
from isoflop.costs import forward_flops, parameters
from isoflop.runs import RunFolder

SKIP = (FILES / "skip.py").read_text()
STUDY = """
name = "tiny"
budgets_flops = [5e8]
tokens_per_step = 64
evaluation_tokens = 512
data = { corpus = "corpus.txt", sequence_length = 16, test_fraction = 0.2 }
recipe = { precision = "fp32", check_first = false }
shape = { width_step = 4, head_width = 4, hidden_step = 4, width_per_block = 4 }
grid = { sizes = 3, margin = 1, added_at_most = 0, centre_parameters = 12000 }
variants = [{ name = "Baseline" }, { name = "Skip", depth = DEPTH }]
"""
MINE = '{ kind = "my_skip", from = "skip.py", capacity = 0.5 }'


def study_in(folder: Path, depth: str = MINE, text: str = SKIP) -> Path:
    (folder / "skip.py").write_text(text)
    path = folder / "tiny.toml"
    path.write_text(STUDY.replace("DEPTH", depth))
    return path


@pytest.mark.parametrize(
    ("depth", "text", "said"),
    [
        (MINE.replace("skip.py", "none.py"), SKIP, "none.py: no such file"),
        (MINE, "def build(:", r"skip.py: does not run \(line 1\): SyntaxError"),
        (MINE, f"{SKIP}\nimport nowhere_to_be_found", "'nowhere_.*; a variant is one file"),
        (MINE, SKIP.replace("def build", "def built"), "lacks `build`; expected PART, Config"),
        (MINE, SKIP.replace("def processed", "def done"), "lacks `processed`"),
        (MINE, SKIP.replace('"depth"', '"attention"'), "PART is 'attention', but it is named as d"),
        (MINE, SKIP.replace("Config(Frozen)", "Config"), "Config is no subclass"),
        (MINE, SKIP.replace(": float", ": 'Share'"), "a field of Config is no name in it"),
        (MINE, f"{SKIP}\nPART = 'block'", "PART is set twice; expected one variant"),
        (
            MINE,
            f"{SKIP}\nDECISIONS = ('top_k',)",
            r"DECISIONS is \('top_k',\); .* causal one first",
        ),
        (MINE, f"{SKIP}\nDECISIONS = 'threshold'", "DECISIONS is 'threshold'; expected some of"),
        (MINE, f"{SKIP}\nDECISIONS = {{'threshold'}}", "DECISIONS is {'threshold'}; expected some"),
        (MINE, f"{SKIP}\nDECISIONS = 5", "DECISIONS is 5; expected some of"),
        (MINE.replace('"my_skip"', "5"), SKIP, "depth.kind is 5; expected a name of your own"),
        (
            MINE.replace("my_skip", "Überspringe"),
            SKIP,
            "depth.kind is '.*berspringe'; expected a to z",
        ),
        (
            MINE.replace("capacity", "capacty"),
            SKIP,
            "unknown key depth.capacty; did you mean 'capacity'",
        ),
        (MINE.replace("0.5", "1.5"), SKIP, r"depth.capacity is 1.5; expected a number in \(0, 1\]"),
        (MINE.replace("my_skip", "top_k"), SKIP, "'top_k', which isoflop has itself"),
        (MINE.replace('"skip.py"', "3"), SKIP, "depth.from is 3; expected the path"),
        ('{ kind = ["top_k"], capacity = 0.25 }', SKIP, "depth.kind is .*; did you mean 'top_k'"),
        ("{ kind = { a = 1 } }", SKIP, r"depth.kind is .*; expected one of"),
        ('{ kind = "fixed_skip" }', SKIP, "depth.capacity is missing"),
        ('{ kind = "fixd_skip", capacity = 0.5 }', SKIP, "'fixd_skip'; did you mean 'fixed_skip'"),
        ('{ kind = "mine", form = "m.py" }', SKIP, "one of .* 'routed', or a name .* with `from`"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], depth: str, text: str, said: str
) -> None:
    path = study_in(tmp_path, depth, text)
    with pytest.raises(ValueError, match=said):
        load_study(path)
    assert main(["costs", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            ("return max(1, round(", "return max(1, ("),
            "`processed` gives 524288.0 of",
        ),
        (
            ("parameters=0", "parameters=0.5"),
            r"`costs` fails \(line 22\): .*Costs.parameters is 0.5\. ",
        ),
        (("return Costs", "return dict"), "`costs` gives {.*}; expected Costs"),
        (
            ("return Costs", "1 / 0; return Costs"),
            r"`costs` fails \(line 22\): ZeroDivisionError: div",
        ),
        (
            ("SCHEDULED", "period = lambda _: 0; SCHEDULED"),
            "`period` gives 0; expected a whole num",
        ),
    ],
)
def test_what_its_functions_get_wrong_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], edit: tuple[str, str], said: str
) -> None:
    path = study_in(tmp_path, text=SKIP.replace(*edit))
    assert main(["costs", str(path)]) == 2
    told = capsys.readouterr().err
    assert re.search(said, told), told
    assert told.count("\n") == 1


def test_the_text_of_the_file_is_part_of_what_a_run_is(tmp_path: Path) -> None:
    first = load_study(study_in(tmp_path)).variants[1]
    left_out = load_study(study_in(tmp_path, MINE.replace(", capacity = 0.5", ""))).variants[1]
    assert left_out == first
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    assert load_study(study_in(moved)).variants[1] == first
    edited = load_study(study_in(tmp_path, text=SKIP + "\n# edited\n")).variants[1]
    other = load_study(study_in(tmp_path, MINE.replace("0.5", "0.25"))).variants[1]
    ids = [run_of(tmp_path, depth=one.depth).run_id for one in (first, edited, other)]
    assert len(set(ids)) == 3
    assert other.depth.described == "my_skip (capacity 0.25)"  # type: ignore[union-attr]


def test_a_record_of_an_unknown_kind_is_read_without_code(tmp_path: Path) -> None:
    config = run_of(tmp_path, **shipped("feed_forward", "expert_choice"))
    data = config.model_dump(mode="json")
    data["model"]["feed_forward"]["source"] = "0" * 64
    read = RunConfig.model_validate(data)
    assert read.run_id != config.run_id
    assert read.model.decisions == ("threshold", "top_k")
    assert read.model.own["feed_forward"].described == "expert_choice"
    with pytest.raises(ValueError, match=r"needs its Python file, whose text .*0000.* not at hand"):
        parameters(read.model)


def test_installed_packages_name_variants_by_entry_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_skip.py").write_text(SKIP)
    about = tmp_path / "theirs-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[isoflop.variants]\ntheirs = their_skip\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    depth = load_study(study_in(tmp_path, '{ kind = "theirs" }')).variants[1].depth
    assert depth == own("depth", "theirs", {}, tmp_path / "their_skip.py")


def test_a_scheduled_depth_is_charged_for_its_whole_training(tmp_path: Path) -> None:
    from isoflop.costs import train_flops_per_token

    model = run_of(tmp_path, **named("skip", capacity=0.25)).model
    ends = [3 * forward_flops(model, 64, progress=at).per_token for at in (0.0, 1.0)]
    assert ends[1] < train_flops_per_token(model, 64) < ends[0]


READ = """
import sys
from pathlib import Path
from isoflop.cli import main
from isoflop.runs import RunStore, read_records
assert [r.run_id for r in RunStore(Path("runs/tiny")).records()]
assert main(["fit", "records.jsonl.gz"]) == 0
assert main(["fit", "runs/tiny/study.json"]) == 0
"""


@pytest.mark.slow
def test_a_study_of_ones_own_variant_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_of(tmp_path)  # which writes a corpus
    path = study_in(tmp_path)
    assert main(["run", str(path), "--workers", "2"]) == 0
    folders = [RunFolder(one) for one in sorted((tmp_path / "runs/tiny/runs").iterdir())]
    kept = [folder for folder in folders if folder.config().model.own]
    assert len(folders) == 2 * len(kept) == 6
    assert all(next(one.path.glob("variant-my_skip-*.py")).read_text() == SKIP for one in kept)
    assert main(["fit", str(path)]) == 0
    assert main(["report", str(path)]) == 0
    assert "depth my_skip" in (tmp_path / "runs/tiny/report/index.html").read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["sample", str(kept[0].path), "--tokens", "5"]) == 0
    assert "my_skip does not decode with a cache: each token takes" in capsys.readouterr().err
    assert main(["export", str(path), "--to", "out"]) == 0
    records = (tmp_path / "out/tiny/records.jsonl.gz").read_bytes()
    assert list((tmp_path / "out/tiny").glob("variant-my_skip-*.py"))
    (tmp_path / "records.jsonl.gz").write_bytes(records)
    assert b"my_skip" in gzip.decompress(records)
    (tmp_path / "skip.py").unlink()
    subprocess.run([sys.executable, "-c", READ], cwd=tmp_path, check=True)
    # An edited file is another variant, of which nothing is trained yet.
    study_in(tmp_path, text=SKIP + "\n")
    capsys.readouterr()
    assert main(["status", str(path), "--json"]) == 0
    assert not json.loads(capsys.readouterr().out)["complete"]


def test_a_file_alone_needs_a_default_for_each_setting(tmp_path: Path) -> None:
    study_in(tmp_path, text=SKIP.replace("Field(default=0.5, gt=0, le=1)", "Field(gt=0)"))
    with pytest.raises(ValueError, match=r"skip\.py: Config\.capacity has no default, .*; give it"):
        of_file(tmp_path / "skip.py")
