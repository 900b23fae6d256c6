"""A whole run of a tiny recipe, killed on its way and resumed; its plan; its model."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

STAGES = ["tokenizer", "prepare", "pretrain", "teacher", "distill", "sft", "merge", "evaluate"]


class Finished(NamedTuple):
    """A run, and what was known about it before and during."""

    recipe: Path
    folder: Path
    plan: dict[str, Any]
    killed_while: str
    output: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def finished(
    tallyformer: Any, make_recipe: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """Plan a run, start it, kill it in the middle, and run it again."""
    place = tmp_path_factory.mktemp("run")
    recipe = make_recipe(place, full=True)
    # So long that a rehearsal on a busy machine reaches its last stage.
    options = ["--json", "--probe-seconds", 100]
    planned = tallyformer("plan", "--recipe", recipe, *options, cwd=place)
    assert planned.returncode == 0, planned.stderr
    assert not (place / "runs").exists()
    killed_while = _start_and_kill(recipe, place)
    done = tallyformer("run", "--recipe", "tiny.yaml", cwd=place)
    assert done.returncode == 0, done.stderr
    plan = json.loads(planned.stdout)
    return Finished(recipe, place / "runs" / "tiny", plan, killed_while, done)


def _start_and_kill(recipe: Path, place: Path) -> str:
    """SIGKILL a run as soon as its fourth stage begins; return the last header it printed."""
    script = Path(sys.executable).with_name("tallyformer")
    with subprocess.Popen(
        [script, "run", "--recipe", recipe],
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if "4/9 teacher" in line:
                run.kill()
                break
        run.stderr.read()
    assert run.returncode == -signal.SIGKILL
    return line


def test_a_killed_run_goes_on_where_it_was(finished: Finished) -> None:
    assert "4/9 teacher" in finished.killed_while
    headers = [line for line in finished.output.stderr.splitlines() if line.startswith("── ")]
    assert [h.split()[2].rstrip(":") for h in headers] == [*STAGES, "export"]
    assert ["finished before" in h for h in headers] == [True] * 3 + [False] * 6


def test_a_run_ends_with_the_paths_of_its_report_and_its_model(finished: Finished) -> None:
    report, model, chat = finished.output.stdout.splitlines()[-3:]
    assert report == "report: runs/tiny/evaluate/report.html"
    assert model == "model:  runs/tiny/model"
    assert chat.startswith("chat:   ") and chat.endswith("tallyformer chat --model runs/tiny/model")
    assert (finished.folder / "evaluate" / "report.html").is_file()
    assert (finished.folder / "model" / "model.safetensors").is_file()


def test_the_evaluation_ends_with_the_figures_that_matter(finished: Finished) -> None:
    [line] = [s for s in finished.output.stderr.splitlines() if "evaluate done: " in s]
    kept = json.loads((finished.folder / "evaluate" / "manifest.json").read_text(encoding="utf-8"))
    responses, texts = (kept["metrics"][name] for name in ("response_perplexity", "perplexity"))
    before, after = responses["before sft"], responses["after sft"]
    assert line.endswith(
        f"  (response perplexity {before:.2f} -> {after:.2f}, "
        f"perplexity of texts {texts['merge']['texts']:.2f})"
    )


def test_the_folder_keeps_the_recipe_with_every_value(finished: Finished, tallyformer: Any) -> None:
    kept = finished.folder / "recipe.yaml"
    shown = tallyformer("config", "show", "--recipe", finished.recipe)
    signature, _, values = kept.read_text(encoding="utf-8").partition("\n")
    assert signature.startswith("# Written by TallyFormer")
    assert values == shown.stdout
    assert yaml.safe_load(shown.stdout)["pretrain"]["optimizer"]["betas"] == [0.9, 0.95]


def _times(folder: Path) -> dict[str, int]:
    names = [p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"]
    return {str(p): p.stat().st_mtime_ns for p in names}


def test_a_finished_run_is_checked_and_left_as_it_is(finished: Finished, tallyformer: Any) -> None:
    before = _times(finished.folder)
    again = tallyformer("run", "--recipe", finished.recipe, "--out", finished.folder, "--resume")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("finished before") == 9
    assert again.stdout.splitlines()[-2] == f"model:  {finished.folder / 'model'}"
    assert _times(finished.folder) == before


def test_another_recipe_in_the_same_folder_is_refused_and_leaves_no_trace(
    finished: Finished, tallyformer: Any
) -> None:
    before = _times(finished.folder)
    options = ["--recipe", finished.recipe, "--out", finished.folder]
    done = tallyformer("run", *options, "--set", "pretrain.epochs=1")
    assert done.returncode == 3
    assert "belongs to another run" in done.stderr and "pretrain" in done.stderr
    dry = tallyformer("run", *options, "--set", "pretrain.epochs=1", "--dry-run")
    assert dry.returncode == 3 and dry.stderr == done.stderr.splitlines(keepends=True)[-1]
    assert _times(finished.folder) == before


def test_the_folder_of_a_stage_is_no_place_for_a_run(tallyformer: Any, finished: Finished) -> None:
    inside = finished.folder / "pretrain"
    before = sorted(inside.iterdir())
    for options in ([], ["--dry-run"]):
        done = tallyformer("run", "--recipe", finished.recipe, "--out", inside, *options)
        assert done.returncode == 3
        assert f"{inside}: is the folder of a stage" in done.stderr
        assert sorted(inside.iterdir()) == before


def _stopped(command: list[str], place: Path, once: Path) -> str:
    """Standard error of a command that gets SIGTERM when a file has its first line."""
    with subprocess.Popen(
        command,
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        while not (once.is_file() and once.stat().st_size) and run.poll() is None:
            time.sleep(0.05)
        run.terminate()
        _, stderr = run.communicate()
    assert run.returncode == 143, stderr
    return stderr


def test_the_command_that_a_stopped_stage_prints_goes_on_with_it(
    tallyformer: Any, make_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = make_recipe(tmp_path)
    out = tmp_path / "out"
    tallyformer("prepare", "--recipe", recipe, "--out", out)
    length = ["--set", "pretrain.epochs=null", "--set", "pretrain.steps=100000"]
    script = str(Path(sys.executable).with_name("tallyformer"))
    metrics = out / "pretrain" / "metrics.jsonl"
    command = [script, "pretrain", "--recipe", str(recipe), "--out", str(out), *length]
    said = _stopped(command, tmp_path, metrics)
    goes_on = shlex.split(said.strip().splitlines()[-1].split("Resume with: ")[1])
    metrics.unlink()
    again = _stopped([script, *goes_on[1:]], tmp_path, metrics)
    first, second = (int(re.search(r"stopped at step (\d+)", s)[1]) for s in (said, again))
    assert 0 < first < second


def test_prepare_without_a_tokenizer_can_be_rehearsed(recipe: Path, tallyformer: Any) -> None:
    done = tallyformer("prepare", "--recipe", recipe, "--out", recipe.parent / "o", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[:2]] == ["tokenizer", "prepare"]


def test_a_missing_source_is_named_once(recipe: Path, tallyformer: Any) -> None:
    for file in (recipe.parent / "texts").iterdir():
        file.unlink()
    done = tallyformer("run", "--recipe", recipe, "--out", recipe.parent / "o", "--dry-run")
    assert done.returncode == 3 and done.stderr.count("no file matches") == 1


def test_two_processes_do_not_work_in_one_folder(recipe: Path, tallyformer: Any) -> None:
    out = recipe.parent / "out"
    out.mkdir()
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = tallyformer("tokenizer", "--recipe", recipe, "--out", out)
    assert done.returncode == 3 and "another tallyformer process" in done.stderr
    assert not (out / "tokenizer").exists()


def test_a_started_stage_asks_for_resume(recipe: Path, tallyformer: Any) -> None:
    out = recipe.parent / "out"
    (out / "tokenizer").mkdir(parents=True)
    (out / "tokenizer" / "foreign.txt").write_text("mine")
    done = tallyformer("tokenizer", "--recipe", recipe, "--out", out, "--resume")
    assert done.returncode == 3 and "no tokenizer stage wrote" in done.stderr
    assert (out / "tokenizer" / "foreign.txt").read_text() == "mine"
    dry = tallyformer("tokenizer", "--recipe", recipe, "--out", out, "--dry-run")
    assert dry.returncode == 3 and dry.stderr == done.stderr.splitlines(keepends=True)[-1]


def _manifest(finished: Finished, stage: str) -> dict[str, Any]:
    text = (finished.folder / stage / "manifest.json").read_text(encoding="utf-8")
    return json.loads(text)["metrics"]  # type: ignore[no-any-return]


def test_the_lengths_planned_before_the_run_were_right(finished: Finished) -> None:
    plan = finished.plan
    assert plan["exact"] is False and plan["vocabulary"] == 300
    [source] = plan["sources"]
    prepared = _manifest(finished, "prepare")["total"]
    # The sample is the whole of so small a source; the split by hash is all that is uncertain.
    whole = source["tokens"] + source["validation_tokens"]
    assert whole == pytest.approx(prepared["tokens"]["total"], rel=0.02)
    for training in plan["trainings"]:
        stage = training["stage"]
        really = _manifest(finished, stage)
        assert plan["measured"][training["name"]]["seconds"] > 0
        assert training["parameters"] == _manifest(finished, "pretrain")["parameters"]
        if stage != "pretrain":  # whose length depends on the estimated tokens
            assert (
                training["steps"] * training["section"]["gradient_accumulation"] * 4 * 32
                == (really["tokens"])
            )


def test_the_planned_memory_is_that_of_the_training(
    finished: Finished, tallyformer: Any, make_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """Of a model whose weights, gradients and moments need more than the interpreter itself."""
    recipe, out = make_recipe(tmp_path), tmp_path / "out"
    for stage in ("tokenizer", "prepare"):
        shutil.copytree(finished.folder / stage, out / stage)
    sizes = {"hidden_size": 640, "intermediate_size": 2560, "num_hidden_layers": 5}
    options = ["--recipe", recipe, "--out", out, "--set", f"data_root={finished.recipe.parent}"]
    for key, value in sizes.items():
        options += ["--set", f"model.{key}={value}"]
    options += ["--set", "pretrain.epochs=null", "--set", "pretrain.steps=6"]
    planned = tallyformer("plan", *options, "--json", "--probe-seconds", 100)
    assert planned.returncode == 0, planned.stderr
    [training] = json.loads(planned.stdout)["trainings"]
    states_mb = 16 * training["parameters"] / 1e6
    assert states_mb > 390
    done = tallyformer("pretrain", *options)
    assert done.returncode == 0, done.stderr
    really = json.loads((out / "pretrain" / "manifest.json").read_text(encoding="utf-8"))
    guess = json.loads(planned.stdout)["peak_memory_mb"]
    # One of the four (weights, gradients, two moments) forgotten would be wrong by a quarter.
    assert guess == pytest.approx(really["metrics"]["peak_memory_mb"], abs=states_mb / 5)
    by_formula = json.loads(planned.stdout)["by_formula"]["pretrain"]["peak_memory_mb"]
    assert by_formula == pytest.approx(really["metrics"]["peak_memory_mb"], rel=0.25)


def test_the_plan_after_prepare_is_exact(finished: Finished, tallyformer: Any) -> None:
    options = ["--recipe", finished.recipe, "--out", finished.folder, "--no-probe"]
    done = tallyformer("plan", *options, "--json")
    plan = json.loads(done.stdout)
    assert plan["exact"] is True and plan["measured"] == {} and plan["seconds"] > 0
    prepared = _manifest(finished, "prepare")["sources"]["texts"]["tokens"]
    assert plan["sources"][0]["tokens"] == prepared["train"]
    for training in plan["trainings"]:
        really = _manifest(finished, training["stage"])
        assert (training["steps"], training["tokens"]) == (
            really.get("steps", 5),
            really["tokens"],
        )
    table = tallyformer("plan", *options).stdout
    assert "pretrain" in table and "distill 1" in table and "300 ids\n" in table


def test_inspect_shows_that_the_response_and_its_end_are_trained(
    finished: Finished, tallyformer: Any
) -> None:
    options = ["--recipe", finished.recipe, "--out", finished.folder, "--count", 2]
    done = tallyformer("sft", "inspect", *options)
    assert done.returncode == 0, done.stderr
    conversations = done.stdout.strip().split("\n\n")
    assert len(conversations) == 2
    for conversation in conversations:
        title, *lines = conversation.splitlines()
        rows = [line.split(maxsplit=2) for line in lines]
        trained = "".join(eval(text) for mark, _, text in rows if mark == "train")
        read = "".join(eval(text) for mark, _, text in rows if mark == ".")
        assert read.startswith("<|user|> Profit ") and read.endswith("? <|assistant|>")
        assert trained.startswith(" It is ") and trained.endswith(" EUR.<|endoftext|>")
        assert title.endswith(f"{len(rows)} tokens, {sum(r[0] == 'train' for r in rows)} trained")


def test_inspect_says_what_was_read_and_marks_every_answer_of_a_conversation(
    finished: Finished, tallyformer: Any, tmp_path: Path
) -> None:
    turns = ("Profit?", "5 EUR.", "Why?", "Cost.")
    row = {
        "messages": [
            {"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)
        ]
    }
    rows = [row, {**row, "messages": [{"role": "user", "content": "x"}]}]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    options = ["--recipe", finished.recipe, "--out", finished.folder]
    source = f"sft.sources=[{{name: talk, paths: ['{tmp_path}/talk.jsonl']}}]"
    done = tallyformer("sft", "inspect", *options, "--set", source)
    assert done.returncode == 0, done.stderr
    assert "talk: 2 rows, 1 to train on, 0 held out, dropped: 1 no_answer; 1 are" in done.stderr
    lines = [line.split(maxsplit=2) for line in done.stdout.strip().splitlines()[1:]]
    trained = "".join(eval(text) for mark, _, text in lines if mark == "train")
    read = "".join(eval(text) for mark, _, text in lines if mark == ".")
    assert trained == " 5 EUR.<|endoftext|> Cost.<|endoftext|>"
    assert read == "<|user|> Profit? <|assistant|><|user|> Why? <|assistant|>"


def test_the_final_model_answers(finished: Finished, tallyformer: Any) -> None:
    options = ["--model", finished.folder / "model", "--temperature", 0, "--max-tokens", 5]
    done = tallyformer("generate", *options, "--chat", "--prompt", "Profit 3?")
    assert done.returncode == 0 and done.stdout.endswith("\n"), done.stderr


def test_the_report_command_writes_one_page_for_two_runs(
    finished: Finished, tallyformer: Any, tmp_path: Path
) -> None:
    page, other = tmp_path / "both.html", tmp_path / "other"
    shutil.copytree(finished.folder, other)
    done = tallyformer("report", finished.folder, other, "--out", page)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"report: {page}\n"
    assert page.read_text(encoding="utf-8").startswith("<!")
