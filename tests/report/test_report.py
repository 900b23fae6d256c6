"""The report as a page: complete, self-contained, escaped, accessible, and there in any state."""

from __future__ import annotations

import html.parser
import itertools
import json
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tallyformer.artifacts.json_files import write_checked_json
from tallyformer.artifacts.manifest import Manifest, resign
from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.errors import ArtifactError, UsageError
from tallyformer.evaluation.statistics import ENOUGH
from tallyformer.report.comparison import Comparison, control_note
from tallyformer.report.curves import MOST_POINTS, stage_curves
from tallyformer.report.names import LONGEST_NAME, short_names
from tallyformer.report.page import write_report
from tallyformer.report.plots import Line, line_plot
from tallyformer.report.results_tables import MOST_GROUPS, facts_tables, perplexity_tables
from tallyformer.report.run_card import run_card
from tallyformer.report.run_data import Curves, RunData, read_run
from tallyformer.report.run_tables import data_tables, passes_by_source, stages_table
from tallyformer.report.tables import (
    MISSING,
    Measure,
    TableBuilder,
    duration,
    fixed,
    signed,
    signed_and_relative,
)
from tallyformer.report.written import MOST_STEPS

_ROW = {"model": "pretrain", "domain": "bonds"}
VOID = {"meta", "br", "img", "link", "input", "hr"}


class _Page(html.parser.HTMLParser):
    """Checks that tags are balanced, and collects elements with their attributes and text."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def page(tiny: tuple[Recipe, RunFolder]) -> str:
    return (tiny[1].stage("evaluate") / "report.html").read_text(encoding="utf-8")


def _report(tmp_path: Path, *runs: RunFolder) -> str:
    out = tmp_path / "report.html"
    write_report(list(runs), out)
    return out.read_text(encoding="utf-8")


def _copy(run: RunFolder, to: Path) -> RunFolder:
    shutil.copytree(run.path, to)
    return RunFolder(to)


def _change(run: RunFolder, change: Any) -> None:
    path = run.stage("evaluate") / "results.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    change(results)
    _put_results(run, results)


def _put_results(run: RunFolder, results: dict[str, Any]) -> None:
    """Results with the checksums of a stage that measured them."""
    results.pop("check", None)
    folder, manifest = run.stage("evaluate"), run.manifest("evaluate")
    write_checked_json(folder / "results.json", results)
    resign(folder, manifest, [Path(name) for name in manifest.files])


def test_the_report_shows_what_the_run_measured(page: str, tiny: tuple[Recipe, RunFolder]) -> None:
    recipe, run = tiny
    results = json.loads((run.stage("evaluate") / "results.json").read_text(encoding="utf-8"))
    text = _Page(page).text
    shown = [f"{row['perplexity']:,.2f}" for row in results["perplexity"]]
    shown += [f"{row['bits_per_byte']:.4f}" for row in results["perplexity"]]
    shown += [sample["question"] for sample in results["samples"]["answers"]]
    shown += [results["machine"]["processor"], f"{results['models']['pretrain']['parameters']:,}"]
    shown += ["bonds", "shares", recipe.description, str(recipe.seed), "pretrain/best"]
    for expected in shown:
        assert expected in text
    for title in ("Loss", "Validation perplexity", "Learning rate", "Gradient norm", "Speed"):
        assert title in text


def test_the_report_needs_nothing_from_outside(page: str) -> None:
    found = _Page(page)
    assert not [t for t, _ in found.elements if t in ("script", "link", "img", "iframe", "object")]
    for _, attributes in found.elements:
        for name in ("src", "href", "xlink:href", "data"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"@import|url\((?!#)", page)


def test_every_table_plot_and_heading_can_be_read_without_seeing_it(page: str) -> None:
    found = _Page(page)
    assert len(found.all("caption")) == len(found.all("table")) > 3
    assert all(cell.get("scope") for cell in found.all("th"))
    images = [attributes for _, attributes in found.elements if attributes.get("role") == "img"]
    assert len(found.all("figure")) == len(images) > 4
    for image in images:
        assert re.search(r" from [\d.e+-]+ at step ", image["aria-label"] or "")
    # A figure with a caption may have no such role itself.
    assert not any("role" in figure for figure in found.all("figure"))
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert found.all("html")[0]["lang"] == "en"


def test_no_two_elements_share_an_id_and_every_reference_has_its_element(page: str) -> None:
    found = _Page(page)
    ids = [a["id"] for _, a in found.elements if "id" in a]
    # matplotlib names equal tick marks and clip paths of different plots alike: equal contents.
    page_ids = [i for i in ids if not re.fullmatch("[mp][0-9a-f]{10}", i or "")]
    assert len(set(page_ids)) == len(page_ids)
    targets = [a["href"] for _, a in found.elements if a.get("href")]
    targets += [
        "#" + (a["aria-labelledby"] or "") for _, a in found.elements if "aria-labelledby" in a
    ]
    targets += re.findall(r"url\((#[^)]+)\)", page)
    assert targets and {t[1:] for t in targets if t} <= set(ids)


def test_text_from_a_run_is_escaped(tiny: tuple[Recipe, RunFolder], tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>&amp;\"'<b>"
    run = _copy(tiny[1], tmp_path / "tiny")
    recipe = (run.path / "recipe.yaml").read_text(encoding="utf-8")
    changed = recipe.partition("\n")[2].replace("Made for a test.", json.dumps(evil))
    (run.path / "recipe.yaml").write_text(changed, encoding="utf-8")

    def poison(results: dict[str, Any]) -> None:
        results["samples"]["answers"][0] |= {"question": evil + "q", "answer": evil + "a"}
        results["arithmetic"]["answers"][0] |= {"question": evil + "s", "kind": evil + "k"}
        results["perplexity"][0] |= {"domain": evil + "d", "model": evil + "m"}
        results["machine"]["processor"] = evil + "p"

    _change(run, poison)
    text = _report(tmp_path, run)
    found = _Page(text)
    assert not found.all("script") and not found.all("b")
    for ending in ("q", "a", "s", "k", "d", "m", "p"):
        assert evil + ending in found.text
    assert evil in found.text


def test_two_runs_stand_side_by_side_with_their_difference(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    other = _copy(tiny[1], tmp_path / "other")

    def better(results: dict[str, Any]) -> None:
        for row, value in zip(results["perplexity"], (200.0, 80.0), strict=True):
            row["perplexity"] = value
        for answer in results["arithmetic"]["answers"][:10]:
            answer["right"] = True

    first = _copy(tiny[1], tmp_path / "first")
    _change(first, lambda r: [row.update(perplexity=100.0) for row in r["perplexity"]])
    _change(first, lambda r: [a.update(right=False) for a in r["arithmetic"]["answers"]])
    _change(other, lambda r: [a.update(right=False) for a in r["arithmetic"]["answers"]])
    _change(other, better)
    text = _report(tmp_path, first, other)
    found = _Page(text)
    assert "100.00 200.00 +100.00 (+100.0%)" in found.text
    assert "100.00 80.00 −20.00 (−20.0%)" in found.text
    assert "0 of 40 10 of 40 0.0% 25.0% +25.0 points" in found.text
    assert "On the 40 questions asked of both" in found.text
    assert "training, first" in found.text and "training, other" in found.text
    spans = [int(a.get("colspan") or 1) for a in found.all("th") if a.get("scope") == "colgroup"]
    assert set(spans) == {1, 2, 3}


def test_what_is_the_same_of_two_runs_is_shown_once() -> None:
    measures = [
        Measure("steps", fixed(0)),
        Measure("time", fixed(0)),
        Measure("loss", fixed(1), signed(1)),
    ]
    builder = TableBuilder("Stages", "stage", ["a", "b"], measures)
    builder.add("pretrain", [[7, 7], [1, 2], [3.0, 3.0]])
    builder.add("sft", [[None, None], [5, 5], [3.0, 4.0]])
    table = builder.table()
    assert table is not None
    assert [(h.text, h.span) for h in table.groups] == [("steps", 1), ("time", 2), ("loss", 3)]
    assert table.columns == ("both", "a", "b", "a", "b", "difference")
    assert table.rows[0].cells == ("7", "1", "2", "3.0", "3.0", "0.0")
    assert table.rows[1].cells == (MISSING, "5", "5", "3.0", "4.0", "+1.0")


def test_data_that_two_runs_share_are_shown_once(tiny: tuple[Recipe, RunFolder]) -> None:
    first, other = read_run(tiny[1], "first"), read_run(tiny[1], "other")
    captions = [table.caption for table in data_tables([first, other])]
    assert captions == ["Documents by source", "Tokens by source"]
    other.manifests["prepare"].metrics["sources"]["bonds"]["documents_in"] += 1
    captions = [table.caption for table in data_tables([first, other])]
    assert len(captions) == 4 and captions[2] == "Documents of other by source"


def test_a_difference_in_the_last_digits_does_not_look_like_a_large_one() -> None:
    found = line_plot(
        "Validation perplexity",
        [Line("before", [78], [10.6320708]), Line("now", [78], [10.6320715], run=1)],
        y_label="perplexity",
    )
    assert found is not None
    assert "1e" not in "".join(re.findall(r"<text[^>]*>([^<]*)</text>", found.svg))


def test_a_level_curve_above_zero_is_wholly_in_sight() -> None:
    found = line_plot("Goodput", [Line("good", [50], [146])], y_label="a second", limits=(0, None))
    assert found is not None
    _, frame = re.findall(r'd="M ([^"]*) z "', found.svg)[:2]
    top = min(float(y) for y in re.findall(r"[\d.]+ ([\d.]+)", frame))
    [mark] = re.findall(r'<use [^>]* y="([\d.]+)" style="(?!fill: currentColor)', found.svg)
    assert float(mark) - top > 4


def test_every_row_of_a_table_is_as_wide_as_its_head(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    for runs in ((tiny[1],), (tiny[1], _copy(tiny[1], tmp_path / "other"))):
        for table in re.findall(r"<table>.*?</table>", _report(tmp_path, *runs), re.DOTALL):
            widths = set()
            for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL):
                cells = re.findall(r"<t[hd]([^>]*)>", row)
                widths.add(sum(int((re.findall(r'colspan="(\d+)"', c) or [1])[0]) for c in cells))
            assert len(widths) == 1, table


def test_a_report_of_an_unfinished_run_says_what_is_missing(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    empty = RunFolder(tmp_path / "empty")
    empty.path.mkdir()
    text = _Page(_report(tmp_path, empty)).text
    assert "No training stage has finished." in text
    assert "There is no recipe in this folder, and no stage has finished." in text
    assert "No stage has finished, and there is no recipe." in text
    for keep in ("tokenizer", "prepare", "pretrain", "evaluate"):
        partial = RunFolder(tmp_path / f"only-{keep}")
        shutil.copytree(tiny[1].stage(keep), partial.stage(keep))
        assert _Page(_report(tmp_path, partial)).text
    unfinished = _copy(tiny[1], tmp_path / "unfinished")
    (unfinished.stage("pretrain") / "manifest.json").unlink()
    assert "Learning rate" in _Page(_report(tmp_path, unfinished)).text
    both = _Page(_report(tmp_path, empty, tiny[1])).text
    assert "bonds" in both and "–" in both
    assert "Asked of: pretrain. Greedy" in both


def _write_samples(run: RunFolder, *lines: object, stage: str = "pretrain") -> None:
    """As a training that is not finished writes them."""
    folder = run.stage(stage)
    (folder / "manifest.json").unlink(missing_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "samples.jsonl").write_text(text, encoding="utf-8")


def _line(step: int, **texts: str) -> dict[str, Any]:
    samples = [{"prompt": p, "text": t, "expected": "as it goes on"} for p, t in texts.items()]
    return {"step": step, "samples": samples}


def test_the_report_shows_what_the_model_wrote_while_it_trained(
    page: str, tiny: tuple[Recipe, RunFolder]
) -> None:
    lines = (tiny[1].stage("pretrain") / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    text = _Page(page).text
    assert "Written while it trained" in text
    for line in map(json.loads, lines):
        assert f"step {line['step']}" in text
        for sample in line["samples"]:
            for shown in sample.values():
                assert " ".join(shown.split()) in text


def test_of_many_validations_the_first_some_between_and_the_last_are_shown(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    run = _copy(tiny[1], tmp_path / "many")
    _write_samples(run, *(_line(step, Bonds=f"text-{step}.") for step in range(10, 2010, 10)))
    text = _Page(_report(tmp_path, run)).text
    shown = [int(step) for step in re.findall(r"text-(\d+)\.", text)]
    assert shown[0] == 10 and shown[-1] == 2000
    assert len(shown) == MOST_STEPS and shown == sorted(set(shown))
    assert text.count("as it goes on") == 1


def test_what_two_runs_wrote_to_one_prompt_stands_together(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    first, second = (_copy(tiny[1], tmp_path / name) for name in ("first", "second"))
    _write_samples(first, _line(5, Bonds="pay"), _line(9, Bonds="pay interest"))
    _write_samples(second, _line(5, Bonds="are loans", Shares="are parts"))
    text = _Page(_report(tmp_path, first, second)).text
    assert (
        "Bonds step 5, first pay step 9, first pay interest step 5, second are loans "
        "In the data as it goes on Shares step 5, second are parts"
    ) in text


def test_what_a_model_wrote_is_escaped_whatever_it_is(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    evil = "<script>alert('x')</script>&amp;\"'</dd><b>"
    run = _copy(tiny[1], tmp_path / "evil")
    _write_samples(run, _line(1, **{evil: evil + "t"}), _line(2, **{evil: "half \ud800"}))
    found = _Page(_report(tmp_path, run))
    assert not found.all("script") and not found.all("b")
    assert evil + "t" in found.text and "half ?" in found.text


def test_samples_that_are_torn_are_left_out_and_damaged_ones_say_so(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    run = _copy(tiny[1], tmp_path / "torn")
    _write_samples(run, _line(1, Bonds="pay"))
    path = run.stage("pretrain") / "samples.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 2, "sam')
    assert "step 1" in _Page(_report(tmp_path, run)).text
    path.write_bytes(whole + b'{"step": 2, "samples": [{"prompt": 3}]}\n')
    reason = r"samples.jsonl: damaged \(line 2 is not a line of samples\). Delete it to do without"
    with pytest.raises(ArtifactError, match=reason):
        _report(tmp_path, run)


def test_a_run_without_samples_says_why(tiny: tuple[Recipe, RunFolder], tmp_path: Path) -> None:
    run = _copy(tiny[1], tmp_path / "without")
    _write_samples(run)
    assert "No training stage has written samples" in _Page(_report(tmp_path, run)).text


def test_a_torn_last_line_of_metrics_is_left_out(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    run = _copy(tiny[1], tmp_path / "torn")
    (run.stage("pretrain") / "manifest.json").unlink()
    with (run.stage("pretrain") / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "train", "st')
    assert "Learning rate" in _Page(_report(tmp_path, run)).text


def test_bad_requests_are_refused_with_a_reason(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    run = tiny[1]
    with pytest.raises(UsageError, match="3 were given"):
        write_report([run, run, run], tmp_path / "r.html")
    with pytest.raises(ArtifactError, match=r"is the folder of a stage. Give its run, "):
        write_report([RunFolder(run.stage("pretrain"))], tmp_path / "r.html")
    with pytest.raises(ArtifactError, match=r"nowhere: no such run. Give the folder"):
        write_report([RunFolder(tmp_path / "nowhere")], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"perplexity": 3}, "perplexity: Input should be a valid list"),
        ({"perplexity": [{"model": "pretrain"}]}, r"perplexity\.0\.domain: Field required"),
        ({"perplexity": [_ROW | {"perplexity": "x"}]}, r"perplexity\.0\.perplexity: "),
        ({"perplexity": [_ROW | {"passages": 1.5}]}, r"perplexity\.0\.passages: "),
        ({"perplexity": [_ROW | {"change": 3}]}, r"perplexity\.0\.change: "),
        ({"responses": [{"model": "m", "when": ["after sft"]}]}, r"responses\.0\.when: "),
        ({"facts": {"answers": [7]}}, r"facts\.answers\.0: "),
        ({"samples": {"answers": [{"question": 1, "answer": "a"}]}}, r"samples\.answers\.0\.q"),
        ({"models": {"pretrain": "x"}}, r"models\.pretrain: "),
        ({"models": {"pretrain": {"parameters": "many"}}}, r"models\.pretrain\.parameters: "),
        ({"machine": {"cores": []}}, r"machine\.cores: "),
    ],
)
def test_results_in_another_form_are_an_error_with_the_fix(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path, content: dict[str, Any], reason: str
) -> None:
    run = _copy(tiny[1], tmp_path / "damaged")
    _put_results(run, content)
    with pytest.raises(ArtifactError, match=rf"results\.json: damaged \({reason}.*make it again"):
        write_report([run], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"a: [",
        b"- a\n- b\n",
        b"\x00\x01",
        b"just text",
        b"model: [1]",
        b"teacher: {model: 3}",
        b"prepare: {sources: {name: x}}",
        b"pretrain: {weights: {a: b}}",
        b"[" * 5000,
        b"a: &a [x, x]\nb: &b [*a, *a, *a]\n" + b"c: [*b, *b]\n" * 20000,
    ],
)
def test_a_damaged_recipe_is_an_error_with_the_fix(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path, content: bytes
) -> None:
    run = _copy(tiny[1], tmp_path / "damaged")
    (run.path / "recipe.yaml").write_bytes(content)
    expected = r"recipe\.yaml: damaged \(.*\)\. Delete it and type the run's own command again"
    with pytest.raises(ArtifactError, match=expected) as caught:
        write_report([run], tmp_path / "r.html")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ("first-of-many-runs-with-a-long-name", "second-of-many-runs-with-a-long-name"),
        ("a-run-with-a-very-long-name-2024-seed-1", "a-run-with-a-very-long-name-2024-seed-2"),
        ("same-start-A-and-the-same-very-end", "same-start-B-and-the-same-very-end"),
    ],
)
def test_runs_with_long_names_can_be_told_apart_in_legends(names: tuple[str, str]) -> None:
    short = short_names(names)
    assert len(set(short)) == 2
    # Room for the number before names whose ends are alike.
    assert all(len(name) <= LONGEST_NAME + 3 for name in short)
    assert short_names(["one", "other"]) == ["one", "other"]


def test_a_long_name_of_a_run_makes_no_column_wide(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    names = [f"finance-{'with-every-hyperparameter-' * 4}{seed}" for seed in (1, 2)]
    page = _report(tmp_path, *(_copy(tiny[1], tmp_path / name) for name in names))
    headings = re.findall(r"<th scope=\"col\"[^>]*>([^<]*)</th>", page)
    assert headings and not any(name in heading for name in names for heading in headings)
    for short in short_names(names):
        assert short in headings
    assert all(name in _Page(page).text for name in names)


def test_a_loss_that_is_not_a_number_is_said_to_be_none(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "nan")
    run.stage("pretrain").mkdir(parents=True)
    lines = [{"kind": "train", "step": step, "loss": loss} for step, loss in ((1, 9.5), (2, None))]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run.stage("pretrain") / "metrics.jsonl").write_text(text, encoding="utf-8")
    assert "training, at last not a number goes from 9.5" in _report(tmp_path, run)


def test_a_dollar_sign_in_a_legend_is_a_dollar_sign() -> None:
    lines = [{"step": i, "loss": float(i)} for i in range(3)]
    runs = [RunData(n, curves=(Curves("sft", lines, []),)) for n in ("$5 to $7", "$1_a$")]
    svg = stage_curves(runs)[0].plots[0].svg
    assert "training, $5 to $7" in svg and "training, $1_a$" in svg


def test_two_folders_of_one_name_are_told_apart(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    other = _copy(tiny[1], tmp_path / "tiny")
    text = _Page(_report(tmp_path, tiny[1], other)).text
    assert f"runs/tiny and {tmp_path.name}/tiny" in text
    for same in (other, RunFolder(other.path / ".." / "tiny")):
        with pytest.raises(UsageError, match=r"is given twice\. Name another run"):
            write_report([other, same], tmp_path / "r.html")


def test_the_same_run_gives_the_same_page(tiny: tuple[Recipe, RunFolder], tmp_path: Path) -> None:
    assert _report(tmp_path, tiny[1]) == _report(tmp_path, tiny[1])


def test_long_curves_are_thinned_but_keep_their_ends_and_null_is_no_point() -> None:
    lines = [{"step": i, "loss": float(i), "grad_norm": None} for i in range(5000)]
    run = RunData("run", curves=(Curves("pretrain", lines, []),))
    [stage] = stage_curves([run])
    assert [plot.title for plot in stage.plots] == ["Loss"]
    assert "from 0 at step 0 to 4999 at step 4999" in stage.plots[0].description
    # A curve of n points is a path of n - 1 line segments.
    path = max(re.findall(r'd="([^"]*)"', stage.plots[0].svg), key=len)
    assert path.count("L") <= MOST_POINTS


def _manifest(stage: str, metrics: dict[str, Any]) -> Manifest:
    return Manifest(stage=stage, fingerprint="f", config={}, seed=0, metrics=metrics)


def test_a_source_is_read_as_often_as_training_read_it() -> None:
    """In whole sequences, by the mixture's own rule: here 156 of `a`, and none of `b`."""
    sources = {"a": {"tokens": {"train": 10_001}}, "b": {"tokens": {"train": 64}}}
    manifests = {
        "prepare": _manifest("prepare", {"sources": sources}),
        "pretrain": _manifest("pretrain", {"tokens": 192 * 64}),
        "teacher": _manifest("teacher", {"tokens": 192 * 32}),
    }
    of_teacher = {"model": {"max_position_embeddings": 32}, "train": {"weights": {"b": 1.0}}}
    recipe = {"model": {"max_position_embeddings": 64}, "teacher": of_teacher}
    run = RunData("run", recipe=recipe, manifests=manifests)
    assert passes_by_source(run, "pretrain") == {"a": 192 / 156}
    assert passes_by_source(run, "teacher") == {"b": 192 / 1}
    assert passes_by_source(run, "distill") == {}
    assert passes_by_source(RunData("run", manifests=manifests), "pretrain") == {}


def _distilled(**metrics: Any) -> RunData:
    phase = {"steps": 5, "tokens": 50, "wall_seconds": 1.0, "validation_perplexity": 7.0}
    known = {
        "validation_perplexity_before": 8.0,
        "validation_perplexity": 6.0,
        "validation_perplexity_after_phases": [9.0, 6.0],
        "best_phase": 2,
        "phases": [phase, phase],
    }
    return RunData("run", manifests={"distill": _manifest("distill", known | metrics)})


def _finding(run: RunData, name: str) -> str:
    return dict(run_card(run).findings)[name]


def test_without_a_control_nothing_is_said_of_what_distillation_did() -> None:
    no_control = (
        "without a control (the same steps with alpha 0), so longer training alone may explain it"
    )
    assert _finding(_distilled(), "distillation") == (
        f"perplexity 8.00 before, 6.00 after on validation text, {no_control}"
    )
    kept = _distilled(
        validation_perplexity=8.0, validation_perplexity_after_phases=[9.0, 8.5], best_phase=0
    )
    assert _finding(kept, "distillation") == (
        "no phase lowered the perplexity of 8.00 (after its phases: 9.00, 8.50); "
        "the student was kept"
    )


def _run_of(name: str, *, alphas: Sequence[float], student: str = "s") -> RunData:
    phases = [{"alpha": alpha, "temperature": 2.0 + alpha, "steps": 5} for alpha in alphas]
    manifest = Manifest(
        stage="distill",
        fingerprint="f",
        config={"distill": {"phases": phases}},
        seed=0,
        inputs={"pretrain": student, "prepare": "p", "tokenizer": "t", "teacher": "x"},
        metrics={"validation_perplexity": 10.0 + sum(alphas)},
    )
    return RunData(name, manifests={"distill": manifest})


def test_a_control_is_the_same_distillation_of_the_same_student_without_a_teacher() -> None:
    taught, alone = _run_of("taught", alphas=(0.5, 0.25)), _run_of("alone", alphas=(0, 0))
    for pair in ([taught, alone], [alone, taught]):
        note = control_note(pair)
        assert note.startswith("alone is the control of taught")
        assert "with the teacher 10.75, without 10.00" in note
    others = [
        _run_of("half", alphas=(0.5, 0)),
        _run_of("shorter", alphas=(0,)),
        _run_of("another", alphas=(0, 0), student="z"),
        RunData("empty"),
    ]
    for other in others:
        assert control_note([taught, other]) == ""
    assert control_note([taught]) == control_note([alone, alone]) == ""


def _tuned(passages: int, low: float, high: float) -> RunData:
    change = {"value": (low + high) / 2, "low": low, "high": high}
    rows = [
        {"model": "pretrain", "when": "before sft", "perplexity": 20.0},
        {
            "model": "merge",
            "when": "after sft",
            "perplexity": 5.0,
            "passages": passages,
            "change": change,
        },
    ]
    texts = [{"model": "merge", "domain": "news", "passages": passages, "change": change}]
    return RunData("run", results={"responses": rows, "perplexity": texts})


def test_a_change_is_judged_by_its_interval_and_of_few_answers_nothing_is_said() -> None:
    start = "perplexity 20.00 before, 5.00 after on "
    surely = _finding(_tuned(ENOUGH, math.log(0.5), math.log(0.6)), "fine-tuning")
    assert surely == start + "20 held-out answers (−45.2%, 95% interval −50.0% to −40.0%)"
    unclear = _finding(_tuned(500, math.log(0.8), math.log(1.25)), "fine-tuning")
    assert unclear.startswith(start + "500 held-out answers (0.0%, 95% interval −20.0% to +25.0%)")
    assert unclear.endswith(": no clear change")
    for few, name in ((3, "3 held-out answers"), (1, "1 held-out answer")):
        found = _finding(_tuned(few, math.log(0.1), math.log(0.2)), "fine-tuning")
        assert found == f"{start}{name}: too few to tell"


def test_the_head_says_what_fine_tuning_did_to_the_texts() -> None:
    assert _finding(_tuned(400, math.log(2), math.log(2)), "") == (
        "change of the texts' perplexity: news +100.0%"
    )
    assert _finding(_tuned(5, math.log(2), math.log(2)), "") == (
        "change of the texts' perplexity: news +100.0% (too few to tell)"
    )


def test_before_evaluation_few_held_out_pairs_are_too_few_as_well() -> None:
    sft = {
        "pairs": {"own": {"train": 37, "validation": 3}},
        "response_perplexity_before": 20.0,
        "response_perplexity": 5.0,
    }
    run = RunData("run", manifests={"sft": _manifest("sft", sft)})
    assert _finding(run, "fine-tuning").endswith("on 3 held-out answers: too few to tell")


def test_few_questions_are_too_few_to_tell_and_little_text_is_a_rough_figure() -> None:
    metrics = {"total": {"tokens": {"validation": 480}}}
    run = RunData(
        "run",
        manifests={
            "prepare": _manifest("prepare", metrics),
            "pretrain": _manifest("pretrain", {"validation_perplexity": 8.0}),
        },
        results={"facts": {"answers": [{"right": True}] * 3}},
    )
    assert (
        _finding(run, "facts")
        == "100.0% right, 3 of 3 new wordings of trained questions: too few to tell"
    )
    assert "(only 480 tokens of it, so a rough figure)" in _finding(run, "pretraining")


@pytest.mark.parametrize(
    ("changed", "perplexity", "bits"),
    [
        ({}, True, True),
        ({"vocabulary": "other"}, False, True),
        ({"seed": 7}, False, False),
        ({"source": "other"}, False, False),
    ],
)
def test_perplexities_are_compared_in_one_vocabulary_on_one_text_alone(
    changed: dict[str, Any], perplexity: bool, bits: bool
) -> None:
    def run(name: str, vocabulary: str = "v", seed: int = 1, source: str = "s") -> RunData:
        row = {"model": "pretrain", "domain": "news", "perplexity": 9.0, "bits_per_byte": 1.0}
        tokenizer = Manifest(
            stage="tokenizer",
            fingerprint="f",
            config={},
            seed=seed,
            files={"tokenizer.json": {"sha256": vocabulary}},
        )
        prepare = Manifest(
            stage="prepare",
            fingerprint="f",
            config={"sources": [{"name": "news"}], "shard_tokens": seed},
            seed=seed,
            inputs={"tokenizer": vocabulary, "news/a.txt": source},
        )
        manifests = {"tokenizer": tokenizer, "prepare": prepare}
        return RunData(name, manifests=manifests, results={"perplexity": [row]})

    runs = [run("a"), run("b", **changed)]
    tables = {table.caption.split(" of ")[0]: table for table in perplexity_tables(runs)}
    assert ("difference" in tables["Perplexity"].columns) == perplexity
    assert ("difference" in tables["Bits per byte"].columns) == bits
    notes = " ".join(Comparison.of(runs).notes())
    assert ("vocabularies differ" in notes) == (changed.get("vocabulary") is not None)
    assert ("validation texts differ" in notes) == (not bits)


def test_of_few_questions_asked_of_two_runs_nothing_is_said() -> None:
    def answers(count: int, right: bool) -> RunData:
        asked = [{"topic": "t", "question": str(i), "right": right} for i in range(count)]
        return RunData(str(right), results={"facts": {"model": "merge", "answers": asked}})

    [table] = facts_tables([answers(ENOUGH - 1, False), answers(ENOUGH - 1, True)])
    assert table.note.endswith("+100.0 to +100.0): too few to tell.")
    [table] = facts_tables([answers(ENOUGH, False), answers(ENOUGH, True)])
    assert table.note.endswith("+100.0 to +100.0).")
    [table] = facts_tables([answers(ENOUGH, True), answers(ENOUGH, True)])
    assert table.note.endswith("asked of both, both have the same ones right.")


def test_shares_of_different_questions_have_no_difference() -> None:
    def answers(first: int) -> RunData:
        asked = [{"topic": "t", "question": str(first + i), "right": True} for i in range(30)]
        return RunData(str(first), results={"facts": {"model": "merge", "answers": asked}})

    [same] = facts_tables([answers(0), answers(0)])
    [other] = facts_tables([answers(0), answers(1)])
    assert "difference" in same.columns and "difference" not in other.columns


def test_phases_are_compared_on_the_same_text_and_the_kept_one_is_named() -> None:
    table = stages_table([_distilled()])
    assert table is not None
    rows = {row.label: row.cells[:2] for row in table.rows}
    assert rows == {
        "distill": ("8.00", "6.00"),
        "distill, phase 1": ("8.00", "9.00"),
        "distill, phase 2": ("9.00", "6.00"),
    }
    assert "Weights that distill kept: those of phase 2." in table.note
    kept = stages_table([_distilled(best_phase=0)])
    assert kept is not None
    assert "Weights that distill kept: the student's own, which no phase improved." in kept.note


def test_the_head_says_what_was_trained_on_what_it_reached_and_what_it_cost() -> None:
    sources = {f"s{i}": {"tokens": {"train": 1000 * i, "validation": 1}} for i in range(1, 7)}
    common = {"wall_seconds": 60.0, "tokens": 500}
    pretrain = {"validation_perplexity": 8.0, "parameters": 1234567, "peak_memory_mb": 900}
    sft = {
        "peak_memory_mb": 1200,
        "pairs": {"faq": {"train": 70}},
        "response_perplexity_before": 20.0,
        "response_perplexity": 5.0,
    }
    run = RunData(
        "run",
        manifests={
            "prepare": _manifest("prepare", {"sources": sources}),
            "pretrain": _manifest("pretrain", common | pretrain),
            "sft": _manifest("sft", common | sft),
        },
        results={"facts": {"answers": [{"right": i < 81} for i in range(263)]}},
    )
    assert run_card(run).findings == [
        (
            "trained on",
            "21,000 tokens of text (s6 6,000, s5 5,000, s4 4,000, s3 3,000, 2 more); "
            "70 questions with answers (faq 70)",
        ),
        ("pretraining", "perplexity 8.00 on validation text; 1,234,567 parameters"),
        (
            "fine-tuning",
            "perplexity 20.00 before, 5.00 after on held-out answers",
        ),
        # Newcombe 1998, Table I, method 3.
        (
            "facts",
            "30.8% right, 81 of 263 new wordings of trained questions "
            "(95% interval 25.5% to 36.6%)",
        ),
        (
            "cost",
            "2 min 0 s of training on 1,000 tokens, at most 1,200 MB of memory (in sft)",
        ),
    ]
    assert run_card(RunData("empty")).findings == []


def test_few_groups_of_questions_stand_below_the_total_and_many_apart() -> None:
    def answers(groups: int) -> RunData:
        asked = [{"topic": f"t{i:02}", "question": str(i), "right": True} for i in range(groups)]
        return RunData("run", results={"facts": {"model": "merge", "answers": asked}})

    [few] = facts_tables([answers(MOST_GROUPS)])
    assert [row.label for row in few.rows][:2] == ["all topics", "t00"]
    assert len(few.rows) == MOST_GROUPS + 1
    total, groups = facts_tables([answers(MOST_GROUPS + 1)])
    assert [row.label for row in total.rows] == ["all topics"]
    assert len(groups.rows) == MOST_GROUPS + 1


def test_numbers_are_written_as_people_read_them() -> None:
    assert [duration(s) for s in (0.4, 42.3, 185, 7620)] == [
        "0.4 s",
        "42 s",
        "3 min 5 s",
        "2 h 7 min",
    ]
    assert fixed(2)(1234.567) == "1,234.57"
    assert signed(2)(1.0, 0.5) == "−0.50"
    assert signed(1)(1.0, 1.01) == "0.0"
    assert signed_and_relative(1)(50.0, 55.0) == "+5.0 (+10.0%)"
    assert signed_and_relative(1)(0.0, 5.0) == "+5.0"
