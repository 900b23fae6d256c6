"""The report as a page: complete, self-contained, escaped, accessible, and there in any state."""

from __future__ import annotations

import html.parser
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.errors import ArtifactError, UsageError
from tallyformer.evaluation.curves import MOST_POINTS, stage_curves
from tallyformer.evaluation.report import write_report
from tallyformer.evaluation.run_data import Curves, RunData
from tallyformer.evaluation.tables import duration, fixed, signed, signed_and_relative

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
    path.write_text(json.dumps(results), encoding="utf-8")


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
    assert len(found.all("figure")) > 4
    for figure in found.all("figure"):
        assert figure["role"] == "img"
        assert re.search(r" from [\d.e+-]+ at step ", figure["aria-label"] or "")
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
    changed = recipe.replace("Made for a test.", json.dumps(evil))
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
    assert set(spans) == {2, 3}


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
    assert "No training stage has finished." in _Page(_report(tmp_path, empty)).text
    for keep in ("tokenizer", "prepare", "pretrain", "evaluate"):
        partial = RunFolder(tmp_path / f"only-{keep}")
        shutil.copytree(tiny[1].stage(keep), partial.stage(keep))
        assert _Page(_report(tmp_path, partial)).text
    unfinished = _copy(tiny[1], tmp_path / "unfinished")
    (unfinished.stage("pretrain") / "manifest.json").unlink()
    assert "Learning rate" in _Page(_report(tmp_path, unfinished)).text
    both = _Page(_report(tmp_path, empty, tiny[1])).text
    assert "bonds" in both and "–" in both


def test_a_torn_last_line_of_metrics_is_left_out(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    run = _copy(tiny[1], tmp_path / "torn")
    with (run.stage("pretrain") / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "train", "st')
    assert "Learning rate" in _Page(_report(tmp_path, run)).text


def test_bad_requests_are_refused_with_a_reason(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    run = tiny[1]
    with pytest.raises(UsageError, match="3 were given"):
        write_report([run, run, run], tmp_path / "r.html")
    with pytest.raises(ArtifactError, match="no such run"):
        write_report([RunFolder(tmp_path / "nowhere")], tmp_path / "r.html")
    damaged = _copy(run, tmp_path / "damaged")
    results = damaged.stage("evaluate") / "results.json"
    results.write_text("{", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"results\.json: damaged .* make it again"):
        write_report([damaged], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_two_folders_of_one_name_are_told_apart(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    other = _copy(tiny[1], tmp_path / "tiny")
    text = _Page(_report(tmp_path, tiny[1], other)).text
    assert f"runs/tiny and {tmp_path.name}/tiny" in text
    twice = _Page(_report(tmp_path, other, other)).text
    assert f"{other.path.as_posix().lstrip('/')} and" in twice.replace("//", "")


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
