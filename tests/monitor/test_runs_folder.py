"""Whatever is in a folder of runs, a look says what it is, and never leaves the folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tallyformer.artifacts.json_files import CHECK, write_checked_json
from tallyformer.artifacts.lock import alone_in
from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.config.plain_yaml import read_plain_yaml
from tallyformer.monitor.curve import Curve
from tallyformer.monitor.facts import StageFact, facts_of
from tallyformer.monitor.inside import Inside, Unreadable
from tallyformer.monitor.runs import MOST_LISTED, RunDetails, RunLook, RunsFolder
from tallyformer.monitor.stages import StageLook, progress
from tallyformer.server.schemas.runs import RunCard

SECRET = "kept outside"


@pytest.fixture
def folder(tiny: tuple[Recipe, RunFolder], tmp_path: Path) -> Path:
    """A folder with the run `tiny`, beside a secret."""
    shutil.copytree(tiny[1].path, tmp_path / "runs" / "tiny")
    (tmp_path / "secret.html").write_text(SECRET)
    return tmp_path / "runs"


def _details(folder: Path) -> RunDetails:
    seen = RunsFolder(folder).details("tiny")
    assert seen is not None
    return seen


def _only(folder: Path) -> RunLook:
    (look,) = RunsFolder(folder).listed().runs
    return look


def test_a_run_is_seen_with_its_stages_curves_samples_and_reports(folder: Path) -> None:
    runs = RunsFolder(folder)
    seen = runs.details("tiny")
    assert seen is not None and seen.look.problem == ""
    assert seen.name == "tiny" and seen.description == "Made for a test."
    states = {stage.stage: stage.state for stage in seen.stages}
    assert [states[s] for s in ("tokenizer", "prepare", "pretrain", "evaluate")] == ["finished"] * 4
    assert states["teacher"] == states["sft"] == states["merge"] == "not in the recipe"
    assert states["export"] == "to do"
    pretrain = next(stage for stage in seen.stages if stage.stage == "pretrain")
    assert pretrain.seconds and pretrain.ended and StageFact("steps", 6) in pretrain.facts
    assert seen.curves == ["pretrain"] and seen.reports == ["evaluate/report.html"]
    assert seen.samples.samples and seen.samples.model
    news = runs.curve("tiny", "pretrain")
    assert news is not None and {part.kind: part.steps for part in news.parts} == {
        "train": [1, 2, 3, 4, 5, 6],
        "validation": [2, 4, 6],
    }
    names = {column.name for part in news.parts for column in part.columns}
    wanted = {"loss", "perplexity", "bits_per_byte", "learning_rate", "grad_norm"}
    assert wanted | {"tokens_per_second", "cpu_percent", "memory_mb"} <= names
    report = runs.report("tiny", "evaluate/report.html")
    assert report is not None and report.startswith(b"<!doctype html>")


def test_a_stage_is_seen_with_the_figures_that_its_manifest_has(folder: Path) -> None:
    """Those of the texts and of the evaluation too, which lie deeper in it than a training's."""
    stages = {stage.stage: stage for stage in _details(folder).stages}
    run = RunFolder(folder / "tiny")
    asked = run.manifest("evaluate").metrics
    facts = stages["evaluate"].facts
    for name in ("manners", "arithmetic"):
        assert StageFact(name, asked[name]["right"], of=asked[name]["asked"]) in facts
    (of_model,) = asked["perplexity"].values()
    for domain, perplexity in of_model.items():
        assert StageFact("perplexity", perplexity, about=domain) in facts
    tokens = run.manifest("prepare").metrics["total"]["tokens"]
    assert StageFact("train_tokens", tokens["train"]) in stages["prepare"].facts
    assert StageFact("validation_tokens", tokens["validation"]) in stages["prepare"].facts


def test_the_figures_of_an_evaluation_are_those_of_its_last_model() -> None:
    perplexity = {"pretrain": {"bonds": 9.0}, "merge": {"bonds": 4.0, "shares": 5.0}}
    facts = facts_of(
        {
            "response_perplexity": {"before sft": 13.5, "after sft": 1.5},
            "perplexity": perplexity,
            "facts": {"right": 417, "asked": 456},
        }
    )
    assert facts == (
        StageFact("facts", 417, of=456),
        StageFact("response_perplexity", 1.5),
        StageFact("perplexity", 4.0, about="bonds"),
        StageFact("perplexity", 5.0, about="shares"),
    )


@pytest.mark.parametrize("value", [None, [], "x", True, {"right": "x", "asked": None}, {"a": []}])
def test_metrics_that_are_no_figures_are_left_out(value: object) -> None:
    names = ("facts", "perplexity", "response_perplexity", "total", "steps")
    assert facts_of(dict.fromkeys(names, value)) == ()
    assert facts_of({"facts": {"right": 0, "asked": 0}, "total": {"tokens": value}}) == ()


def test_a_run_is_running_exactly_while_its_lock_is_held(folder: Path) -> None:
    run = folder / "tiny"
    (run / "evaluate" / "manifest.json").unlink()
    (run / "evaluate" / "work.txt").write_text("{}")
    assert (_only(folder).state, _only(folder).stage) == ("stopped", "evaluate")
    with alone_in(run):
        assert (_only(folder).state, _only(folder).stage) == ("running", "evaluate")
    assert _only(folder).state == "stopped"


def test_looking_never_keeps_a_training_from_beginning(folder: Path) -> None:
    """The look takes the lock for a moment; whoever wants it for good waits that long."""
    code = (
        "import sys; from pathlib import Path; from tallyformer.monitor.runs import RunsFolder\n"
        "runs = RunsFolder(Path(sys.argv[1]))\n"
        "print('looks', flush=True)\n"
        "while True: runs._in_use('tiny')\n"
    )
    with alone_in(folder / "tiny"):
        pass
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
    ) as looking:
        assert looking.stdout is not None and looking.stdout.readline() == "looks\n"
        try:
            for _ in range(300):
                with alone_in(folder / "tiny"):
                    pass
        finally:
            looking.kill()


@pytest.mark.parametrize(
    "name",
    [
        "recipe.yaml",
        "pretrain/manifest.json",
        "evaluate/manifest.json",
        "evaluate/results.json",
        "evaluate/report.html",
        "pretrain/metrics.jsonl",
        "export/work.txt",
        ".lock",
    ],
)
def test_a_damaged_file_is_a_state_and_hides_nothing_else(
    folder: Path, shapes_of_damage: dict[str, Callable[[Path], None]], name: str
) -> None:
    file = folder / "tiny" / name
    file.parent.mkdir(exist_ok=True)
    whole = file.read_bytes() if file.exists() else b""
    runs = RunsFolder(folder)
    for shape, damage in shapes_of_damage.items():
        file.write_bytes(whole)
        damage(file)
        seen = runs.details("tiny")
        assert seen is not None and len(seen.stages) == 9, shape
        json.dumps(seen.samples.problem + seen.look.problem).encode()
        listed = runs.listed().runs[0]
        assert listed.finished
        assert (listed.state, listed.problem) == (seen.look.state, seen.look.problem), shape
        if name.endswith("manifest.json") and shape != "dangling-link":
            assert seen.look.state == "damaged", shape
            assert name in seen.look.problem and str(folder) not in seen.look.problem, shape
        if name == "evaluate/results.json" and shape != "dangling-link":
            assert seen.samples.problem.startswith("evaluate/results.json: "), shape
        news = runs.curve("tiny", "pretrain")
        assert news is not None or name == "pretrain/metrics.jsonl", shape
        for report in seen.reports:
            try:
                assert runs.report("tiny", report) is not None or shape == "dangling-link"
            except Unreadable as reason:
                assert shape == "folder", reason
        shutil.rmtree(file, ignore_errors=True)
        file.unlink(missing_ok=True)


def _other_seed(manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace('"seed": ', '"seed": 1'))


def _other_version(manifest: Path) -> None:
    values = json.loads(manifest.read_text())
    del values[CHECK]
    write_checked_json(manifest, {**values, "format": 99})


def _elsewhere(path: Path) -> None:
    outside = next(above for above in path.parents if (above / "secret.html").exists()) / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def _as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _alone(model: Path) -> None:
    model.mkdir()
    for other in set(model.parent.iterdir()) - {model}:
        if other.is_dir():
            shutil.rmtree(other)
        else:
            other.unlink()


@pytest.mark.parametrize(
    ("name", "change", "advice"),
    [
        ("pretrain/manifest.json", lambda file: file.write_text("{"), "restore"),
        ("pretrain/manifest.json", _other_seed, "restore"),
        ("pretrain/manifest.json", _other_version, "version"),
        ("pretrain/manifest.json", _elsewhere, "link"),
        ("pretrain/manifest.json", _as_folder, "foreign"),
        ("pretrain", _elsewhere, "link"),
        ("", _elsewhere, "link"),
        ("recipe.yaml", Path.unlink, "recipe"),
        ("recipe.yaml", lambda file: file.write_bytes(b"\xff"), "recipe"),
        ("recipe.yaml", lambda file: file.write_text("- 1"), "recipe"),
        ("recipe.yaml", _elsewhere, "link"),
        ("model", _alone, "recipe"),
    ],
)
def test_what_is_wrong_with_a_run_says_what_helps(
    folder: Path, name: str, change: Callable[[Path], object], advice: str
) -> None:
    """Only what is damaged is to be restored; of the rest a healthy stage would be deleted."""
    assert (_only(folder).problem, _only(folder).advice) == ("", None)
    change(folder / "tiny" / name)
    look = _only(folder)
    assert (look.state, look.advice) == ("damaged", advice), look.problem
    assert RunCard.of(look).advice == advice


def test_links_that_lead_out_are_not_followed(folder: Path, tmp_path: Path) -> None:
    run, outside = folder / "tiny", tmp_path / "outside"
    shutil.copytree(run, outside)
    (outside / "page.html").write_text(SECRET)
    (run / "report.html").symlink_to(tmp_path / "secret.html")
    (run / "evaluate" / "up.html").symlink_to("../../../secret.html")
    shutil.rmtree(run / "pretrain")
    (run / "pretrain").symlink_to(outside / "pretrain")
    (folder / "out").symlink_to(outside)
    (folder / "up").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    runs = RunsFolder(folder)
    by_id = {look.id: look for look in runs.listed().runs}
    assert set(by_id) == {"tiny", "out", "up"}
    assert by_id["out"].problem == by_id["up"].problem == ("is a link that leads out of the folder")
    assert by_id["tiny"].problem.startswith("pretrain/manifest.json: is a link")
    seen = runs.details("out")
    assert seen is not None and not seen.reports and not seen.stages
    assert runs.curve("tiny", "pretrain") is None and runs.curve("out", "pretrain") is None
    assert runs.report("out", "page.html") is None
    for report in ("report.html", "evaluate/up.html"):
        with pytest.raises(Unreadable, match="leads out"):
            runs.report("tiny", report)


def test_links_that_stay_inside_are(folder: Path) -> None:
    (folder / "latest").symlink_to("tiny")
    (folder / "tiny" / "pretrain" / "phase-1").symlink_to("../pretrain")
    runs = RunsFolder(folder)
    seen = runs.details("latest")
    assert seen is not None and seen.curves == ["pretrain", "pretrain:phase-1"]
    assert seen.look.problem == ""


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../runs/tiny",
        "tiny/",
        "tiny/..",
        "/",
        "tiny\0",
        "%2e%2e",
        "TINY",
        "..\\tiny",
    ],
)
def test_no_other_name_is_a_run_a_curve_or_a_report(folder: Path, name: str) -> None:
    runs = RunsFolder(folder)
    assert runs.details(name) is None
    assert runs.curve(name, "pretrain") is None
    assert runs.curve("tiny", name) is None
    assert runs.report(name, "evaluate/report.html") is None
    for report in (name, f"{name}/secret.html", f"evaluate/{name}", "evaluate/results.json"):
        assert runs.report("tiny", report) is None


def test_what_is_no_file_does_not_hold_a_look_up(folder: Path) -> None:
    """A pipe that nobody writes to would be waited for."""
    for name in ("pretrain/metrics.jsonl", "evaluate/results.json", "evaluate/report.html"):
        (folder / "tiny" / name).unlink()
        os.mkfifo(folder / "tiny" / name)
    runs = RunsFolder(folder)
    seen = runs.details("tiny")
    assert seen is not None and seen.samples.problem == "evaluate/results.json: is not a file"
    with pytest.raises(Unreadable, match="is not a file"):
        runs.report("tiny", "evaluate/report.html")


def test_names_of_any_bytes_are_shown_and_found(folder: Path) -> None:
    names = [b"\xff\xfe", b"a b", b"<img src=x>", "é".encode(), b"%2e%2e", b"a\nb", b"a%2Fb"]
    for name in names:
        shutil.copytree(os.fsencode(folder / "tiny"), os.fsencode(folder) + b"/" + name)
    runs = RunsFolder(folder)
    ids = {look.id for look in runs.listed().runs}
    assert ids == {r"\xff\xfe", "a b", "<img src=x>", "é", "%2e%2e", "a\nb", "a%2Fb", "tiny"}
    for run in ids:
        run.encode()
        seen = runs.details(run)
        assert seen is not None and seen.look.id == run and seen.curves == ["pretrain"]


def test_many_runs_are_listed_in_part_and_found_by_a_search(tmp_path: Path) -> None:
    for number in range(400):
        run = tmp_path / f"run-{number:04}"
        run.mkdir()
        (run / "recipe.yaml").write_text("name: x\n")
        os.utime(run, (number, number))
    (tmp_path / "notes").mkdir()
    (tmp_path / "run-file").write_text("")
    runs = RunsFolder(tmp_path)
    listed = runs.listed(most=100)
    assert [look.id for look in listed.runs[:2]] == ["run-0399", "run-0398"]
    assert len(listed.runs) == 100 and listed.left_out == 300
    assert [look.id for look in runs.listed("RUN-0007").runs] == ["run-0007"]
    assert runs.details("notes") is None and runs.details("run-0000") is not None


def test_a_recipe_is_read_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(text: str) -> object:
        read.append(text)
        return read_plain_yaml(text)

    monkeypatch.setattr("tallyformer.monitor.runs.read_plain_yaml", counted)
    names = [f"run-{number:04}" for number in range(MOST_LISTED + 1)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text("name: x\n")
    runs = RunsFolder(tmp_path)

    def look_at_all() -> int:
        read.clear()
        runs.listed()
        assert all(runs.details(name) is not None for name in names[-1:] + names[:1])
        return len(read)

    assert look_at_all() >= MOST_LISTED
    assert look_at_all() == 0
    (tmp_path / names[0] / "recipe.yaml").write_text("name: another\n")
    assert look_at_all() == 1


def test_a_folder_that_may_not_be_read_is_a_state(folder: Path) -> None:
    """Root may read everything, so the look is another user's."""
    shutil.copytree(folder / "tiny", folder / "open")
    (folder / "tiny").chmod(0)
    (folder / "open" / "pretrain" / "manifest.json").chmod(0)
    code = (
        "import json, os, sys; from pathlib import Path\n"
        "from tallyformer.monitor.runs import RunsFolder\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "runs = RunsFolder(Path(sys.argv[1])).listed().runs\n"
        "print(json.dumps({look.id: [look.state, look.problem, look.advice] for look in runs}))\n"
    )
    above = [parent for parent in folder.parents if parent.stat().st_mode & 5 != 5]
    modes = {parent: parent.stat().st_mode for parent in above}
    try:
        for parent in above:
            parent.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
        )
    finally:
        for parent, mode in modes.items():
            parent.chmod(mode)
        (folder / "tiny").chmod(0o755)
    reason = "cannot be read (permission denied)"
    assert json.loads(done.stdout) == {
        "tiny": ["damaged", reason, "permission"],
        "open": ["damaged", f"pretrain/manifest.json: {reason}", "permission"],
    }


def test_a_folder_that_is_not_there_yet_has_no_runs(tmp_path: Path) -> None:
    runs = RunsFolder(tmp_path / "runs")
    assert runs.listed().runs == [] and runs.details("tiny") is None
    (tmp_path / "runs" / "new" / "tokenizer").mkdir(parents=True)
    assert [look.id for look in runs.listed().runs] == ["new"]


def test_a_file_of_metrics_that_is_deleted_keeps_its_curve(folder: Path) -> None:
    inside = Inside(folder)
    curve = Curve(lambda: inside.file("tiny", "pretrain", "metrics.jsonl"))
    before = curve.look()
    (folder / "tiny" / "pretrain" / "metrics.jsonl").unlink()
    after = curve.look(before.cursor)
    assert not after.fresh and after.problem == ""


@pytest.mark.parametrize(
    ("stage", "config", "newest", "phase", "expected"),
    [
        ("pretrain", {"train": {"steps": 10, "epochs": None}}, {"step": 5}, 0, 0.5),
        ("pretrain", {"train": {"epochs": 2.0}}, {"step": 5, "epoch": 0.5}, 0, 0.25),
        ("sft", {"steps": None, "epochs": 4.0}, {"step": 5, "epoch": 5.0}, 0, 1.0),
        ("distill", {"distill": {"phases": [{"steps": 4}, {"steps": 2}]}}, {"step": 1}, 1, 0.75),
        ("distill", {"distill": None}, {"step": 1}, 0, None),
        ("pretrain", {"train": []}, {"step": 1}, 0, None),
        ("pretrain", {"train": {"steps": 10}}, {}, 0, None),
        ("pretrain", {"train": {"steps": "ten"}}, {"step": 1}, 0, None),
    ],
)
def test_progress_is_what_is_done_of_what_is_planned(
    stage: str, config: dict[str, object], newest: dict[str, float], phase: int, expected: float
) -> None:
    look = StageLook(stage=stage, state="running", config=config)
    assert progress(look, newest, phase) == expected
