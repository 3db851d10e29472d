"""The harness on a run and on the same model exported: a local task, and the HF path's scores."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from decoded import model_with
from isoflop.cli import main
from isoflop.config import Depth, RandomK
from isoflop.config.own import own
from isoflop.data import ByteTokenizer
from isoflop.generation import engine_for, generate
from isoflop.interop import export_run
from isoflop.interop.exporting import folder_of_model, json_text, write_folder
from isoflop.interop.tokenizers import tokenizer_config, tokenizer_json
from isoflop.model import Transformer
from isoflop.runs import RunFolder
from isoflop.trained import Wishes, sample_run
from learned import Trained

lm_eval = pytest.importorskip("lm_eval", reason="needs the extra lm-eval")
pytestmark = pytest.mark.filterwarnings("ignore")

TASK = {
    "output_type": "multiple_choice",
    "dataset_path": "json",
    "doc_to_text": "{{given}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{gold}}",
    "metric_list": [{"metric": "acc"}],
    "num_fewshot": 0,
}
ROWS = [
    {"given": "the state of", "choices": [" union", " xq#zz~"], "gold": 0},
    {"given": "our law", "choices": [" shall keep", " \u2603 \u2603"], "gold": 0},
    {"given": "is", "choices": ["zzzz", " strong"], "gold": 1},
]


def instance(*arguments: Any) -> Any:
    from lm_eval.api.instance import Instance

    return Instance("loglikelihood", {}, arguments, 0)


def pairs() -> list[Any]:
    texts = [("the state", " of the union"), ("", "is strong"), ("our law shall keep it", " and")]
    return [instance(*one) for one in texts]


def test_a_local_task_is_scored_on_a_run(trained: Trained, tmp_path: Path) -> None:
    from isoflop.interop.lm_eval import IsoflopLM

    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    data = {"data_files": {"test": str(tmp_path / "rows.jsonl")}}
    task = {**TASK, "task": "local", "dataset_kwargs": data, "test_split": "test"}
    model = IsoflopLM(run=str(trained.folder.path), cache=str(trained.cache), batch_size=2)
    found = lm_eval.simple_evaluate(model, tasks=[task], bootstrap_iters=0)
    assert found["results"]["local"]["acc,none"] == 1.0


def test_likelihoods_are_those_of_the_model_alone(trained: Trained) -> None:
    from isoflop.interop.lm_eval import IsoflopLM

    model = IsoflopLM(run=str(trained.folder.path), cache=str(trained.cache), batch_size=2)

    def alone(given: str, asked: str) -> tuple[float, bool]:
        first = [0, *given.encode()]
        ids = torch.tensor([[*first, *asked.encode()]])
        with torch.no_grad():
            told = trained.model(ids[:, :-1]).logits[0].log_softmax(-1)[len(first) - 1 :]
        wanted = ids[0, len(first) :]
        return float(told.gather(1, wanted[:, None]).sum()), bool((told.argmax(-1) == wanted).all())

    for found, one in zip(model.loglikelihood(pairs(), True), pairs(), strict=True):
        loss, greedy = alone(*one.args)
        assert math.isclose(found[0], loss, rel_tol=1e-5)
        assert found[1] == greedy
    ours = sample_run(trained.folder, Wishes("the state of ", 16, 0), cache=trained.cache)
    wish = {"max_gen_toks": 16, "until": ["\n"]}
    (made,) = model.generate_until([instance("the state of ", wish)])
    assert made == "".join(token.text for token in ours.tokens)
    (cut,) = model.generate_until([instance("the state of ", {**wish, "until": made[3]})])
    assert cut == made.split(made[3])[0]


def write_bytes_model(model: Transformer, out: Path, **changes: Any) -> None:
    values, state = folder_of_model(model.config, 64, model.state_dict(), None)
    tokens = tokenizer_json(ByteTokenizer(), begins=False)
    assert tokens is not None
    texts = {"config.json": json_text(values | changes), "tokenizer.json": tokens}
    write_folder(out, texts | {"tokenizer_config.json": json_text(tokenizer_config(64))}, state)


@pytest.mark.parametrize(
    "depth", [own("depth", "fixed_skip", {"capacity": 0.3}), RandomK(capacity=0.5)]
)
def test_text_is_that_of_the_engine_for_the_model(depth: Depth, tmp_path: Path) -> None:
    from isoflop.interop.lm_eval import IsoflopLM

    model = model_with(depth, vocabulary=256)
    write_bytes_model(model, tmp_path / "out", seed=3)
    given, engine = "the state of", engine_for(model, seed=3)
    (found,) = generate(engine, [list(given.encode())], max_tokens=12, stop=[0])
    harness = IsoflopLM(pretrained=str(tmp_path / "out"))
    (made,) = harness.generate_until([instance(given, {"max_gen_toks": 12})])
    assert made == bytes(one for one in found.ids if one).decode(errors="replace")
    ((_, greedy),) = harness._loglikelihood_tokens([(None, list(given.encode()), list(found.ids))])
    assert greedy


def test_half_of_what_is_read_is_left_to_a_text(tmp_path: Path) -> None:
    from isoflop.interop.lm_eval import IsoflopLM

    write_bytes_model(model_with(vocabulary=256), tmp_path / "out")
    harness = IsoflopLM(pretrained=str(tmp_path / "out"))
    text = " ".join(["the state of the union"] * 4)
    found, cut = (harness.generate_until([instance(one, {})])[0] for one in (text, text[-32:]))
    assert found == cut != harness.generate_until([instance(text[-1:], {})])[0]
    for most in (64, 256):
        with pytest.raises(ValueError, match=f"max_gen_toks is {most}; expected fewer than the 64"):
            harness.generate_until([instance(text, {"max_gen_toks": most})])


@pytest.mark.parametrize("routed", [False, True])
def test_the_harness_finds_in_transformers_what_it_finds_here(
    routed: bool, trained: Trained, tmp_path: Path
) -> None:
    from lm_eval.models.huggingface import HFLM

    import isoflop.interop.hugging_face  # noqa: F401
    from isoflop.interop.lm_eval import IsoflopLM

    out = tmp_path / "out"
    if routed:
        export_run(trained.folder, out, cache=trained.cache)
    else:
        write_bytes_model(model_with(vocabulary=256, width=24), out)
    theirs = HFLM(pretrained=str(out), device="cpu", batch_size=2, dtype="float32")
    ours = IsoflopLM(pretrained=str(out), batch_size=2, max_length=theirs.max_length)

    def scores(model: Any) -> Sequence[tuple[float, bool]]:
        found: Sequence[tuple[float, bool]] = model.loglikelihood(pairs(), disable_tqdm=True)
        return found

    for here, there in zip(scores(ours), scores(theirs), strict=True):
        assert here[0] == pytest.approx(there[0], rel=1e-4)
        assert here[1] == there[1]
    text = "the union is strong and our law shall keep it all the more, and more"
    rolled = [model.loglikelihood_rolling([instance(text)])[0] for model in (ours, theirs)]
    assert rolled[0] == pytest.approx(rolled[1], rel=1e-4)


def test_one_model_is_named(tmp_path: Path) -> None:
    from isoflop.interop.lm_eval import IsoflopLM

    with pytest.raises(ValueError, match="expected one of them"):
        IsoflopLM()
    with pytest.raises(ValueError, match="is not a run folder"):
        IsoflopLM(run=str(tmp_path))


def test_eval_scores_tasks_and_keeps_them(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.folder.path, run)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    data = {"data_files": {"test": str(tmp_path / "rows.jsonl")}}
    for name, metric in (("local", "acc"), ("other", "acc_norm")):
        task = {**TASK, "task": name, "dataset_kwargs": data, "test_split": "test"}
        metrics = [{"metric": metric, "aggregation": "mean", "higher_is_better": True}]
        (tmp_path / f"{name}.yaml").write_text(json.dumps({**task, "metric_list": metrics}))

    def call(*arguments: object, code: int = 0) -> str:
        typed = ["eval", run, "--cache", trained.cache, "--include-path", tmp_path, *arguments]
        assert main([str(one) for one in typed]) == code
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err.splitlines()[-1]

    shown = call("--tasks", "local")
    assert "local" in shown
    assert "1.0000" in shown
    folder = RunFolder(run)
    (score,) = folder.tasks().scores
    assert (score.task, score.metric, score.value, score.samples) == ("local", "acc", 1.0, 3)
    assert (score.shots, score.decision) == (0, "predictor")
    assert score.error == 0
    told = json.loads(call("--tasks", "other", "--limit", "2", "--decisions", "router", "--json"))
    assert [one["task"] for one in told["scores"]] == ["other"]
    call("--tasks", "local,other")
    kept = [(one.task, one.limit, one.decision) for one in folder.tasks().scores]
    assert sorted(kept, key=str) == [
        ("local", None, "predictor"),
        ("other", 2, "router"),
        ("other", None, "predictor"),
    ]
    told = call("--tasks", "nowhere", code=2)
    assert "tasks nowhere cannot be had" in told
