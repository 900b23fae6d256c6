"""The stages `tokenizer` and `prepare`, on small real files."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from tallyformer.artifacts.manifest import sha256
from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe, check_recipe, recipe_as_yaml
from tallyformer.config.data import PairSource
from tallyformer.data.hashing import content_hash, in_validation
from tallyformer.data.packed import PackedBatches
from tallyformer.data.pairs import split_pairs
from tallyformer.data.prepare import write_shards
from tallyformer.data.shards import Shards, read_shards
from tallyformer.errors import ArtifactError, ConfigError, DataError, TokenizerError
from tallyformer.stages import prepare, tokenizer
from tallyformer.tokenizer import Tokenizer

COMMAND = Path(sys.executable).with_name("tallyformer")
WORDS = ["bond", "share", "yield", "cash", "risk", "bank", "loan", "rate", "price", "fund"]


def prose(seed: int, documents: int, words: int = 40) -> list[str]:
    """Documents that hardly repeat, from a seed."""
    chance = random.Random(seed)
    return [
        " ".join(f"{chance.choice(WORDS)}{chance.randrange(50)}" for _ in range(words))
        for _ in range(documents)
    ]


def write_rows(path: Path, texts: list[str]) -> None:
    data = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def recipe_of(folder: Path, sources: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    section = {"sources": sources, "min_chars": 20, "workers": 1, **options}
    return {
        "name": "test",
        "data_root": str(folder),
        "model": {"max_position_embeddings": 64},
        "tokenizer": {"kind": "train", "vocab_size": 300, "train_bytes": 20_000},
        "prepare": section,
        "pretrain": {"steps": 1},
    }


def checked(tree: dict[str, Any]) -> Recipe:
    return check_recipe(tree, "test")


def prepared(recipe: Recipe, out: Path) -> tuple[Any, Shards, Tokenizer]:
    """Run both stages; return the manifest, the shards and the tokenizer."""
    run = RunFolder(out)
    tokenizer.run(recipe, run)
    manifest = prepare.run(recipe, run)
    vocabulary = Tokenizer.from_pretrained(run.stage("tokenizer"))
    shards = read_shards(
        run.stage("prepare"), tokenizer_fingerprint=vocabulary.fingerprint, made_by="x"
    )
    return manifest, shards, vocabulary


def checksums(folder: Path) -> dict[str, str]:
    """Every file but the manifest, whose time differs."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in files
        if path.name != "manifest.json"
    }


def decoded(shards: Shards, vocabulary: Tokenizer, split: str) -> dict[str, list[str]]:
    """Every document of a split, by source, read back from the shards."""
    result = {}
    for name, stream in getattr(shards, split).items():
        ids = stream.gather(np.array([0]), stream.tokens)[0] if stream.tokens else np.array([])
        ends = np.flatnonzero(ids == vocabulary.eot_id)
        result[name] = [vocabulary.decode(part) for part in np.split(ids, ends + 1)[:-1]]
    return result


@pytest.fixture
def messy(tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Two sources in several kinds of file, with repetitions across them and bad rows."""
    first, second = prose(1, 120), prose(2, 80)
    write_rows(tmp_path / "a.jsonl.gz", [*first, first[3], "short", " \n ", first[7] + "\r\n"])
    write_rows(tmp_path / "b.jsonl", [*second, first[11], "x" * 3001])
    (tmp_path / "c.txt").write_text(first[0] + "\n")
    sources = [
        {"name": "one", "paths": ["a.jsonl.gz"]},
        {"name": "two", "paths": ["b.jsonl", "c.txt"]},
    ]
    return tmp_path, sources


def test_documents_in_equal_documents_kept_and_dropped_and_tokens_add_up(
    messy: tuple[Path, list[dict[str, Any]]],
) -> None:
    folder, sources = messy
    recipe = checked(recipe_of(folder, sources, max_chars=3000, shard_tokens=1024))
    manifest, shards, vocabulary = prepared(recipe, folder / "run")
    metrics = manifest.metrics
    counts = metrics["sources"]
    assert counts["one"]["dropped"] == {"duplicate": 2, "empty": 1, "too_short": 1}
    assert counts["two"]["dropped"] == {"duplicate": 2, "too_long": 1}
    for name, count in counts.items():
        kept = count["documents"]
        assert count["documents_in"] == kept["total"] + sum(count["dropped"].values())
        for measure in ("documents", "tokens", "bytes"):
            parts = count[measure]
            assert parts["total"] == parts["train"] + parts["validation"] > 0
            assert metrics["total"][measure]["total"] == sum(
                c[measure]["total"] for c in counts.values()
            )
        for split in ("train", "validation"):
            stream = getattr(shards, split)[name]
            texts = decoded(shards, vocabulary, split)[name]
            assert stream.tokens == count["tokens"][split]
            assert len(texts) == kept[split]
            assert sum(len(text.encode()) for text in texts) == count["bytes"][split]
    assert metrics["total"]["documents_in"] == 207


def test_shards_decode_to_the_cleaned_documents_in_order(
    messy: tuple[Path, list[dict[str, Any]]],
) -> None:
    folder, sources = messy
    recipe = checked(recipe_of(folder, sources, max_chars=3000, shard_tokens=1024))
    _, shards, vocabulary = prepared(recipe, folder / "run")
    originals = {"one": prose(1, 120), "two": prose(2, 80)}
    for split, wanted in (("train", False), ("validation", True)):
        for name, texts in decoded(shards, vocabulary, split).items():
            held = [
                text
                for text in originals[name]
                if in_validation(content_hash(text), fraction=0.1, seed=recipe.seed) == wanted
            ]
            assert texts == held
    assert len(shards.train["one"].shards) > 1


def test_documents_are_named_by_their_file_and_row(
    messy: tuple[Path, list[dict[str, Any]]],
) -> None:
    folder, sources = messy
    recipe = checked(recipe_of(folder, sources, max_chars=3000))
    _, shards, _ = prepared(recipe, folder / "run")
    stream = shards.train["two"]
    row = json.loads((folder / "b.jsonl").read_text().splitlines()[0])["text"]
    kept = not in_validation(content_hash(row), fraction=0.1, seed=recipe.seed)
    assert stream.documents(0, 1) == [f"two/b.jsonl:{1 if kept else 2}"]
    batches = PackedBatches(shards.train, context=64, batch_size=2, seed=0)
    assert all(":" in name for name in batches.documents(0))


def test_a_document_keeps_its_split_whatever_the_order_and_the_company(tmp_path: Path) -> None:
    texts = prose(3, 200)
    write_rows(tmp_path / "forward.jsonl", texts)
    write_rows(tmp_path / "backward.jsonl", [*reversed(texts), *prose(4, 50)])
    parts = []
    for name in ("forward", "backward"):
        tree = recipe_of(tmp_path, [{"name": "s", "paths": [f"{name}.jsonl"]}])
        _, shards, vocabulary = prepared(checked(tree), tmp_path / name)
        parts.append(set(decoded(shards, vocabulary, "validation")["s"]) & set(texts))
    assert parts[0] == parts[1] != set()


def test_the_same_bytes_come_out_of_any_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallyformer.data.units.CHUNK_ROWS", 30)
    write_rows(tmp_path / "a.jsonl", [*prose(1, 200), *prose(2, 30)])
    write_rows(tmp_path / "b.jsonl.gz", [*prose(2, 100), *prose(1, 50)])
    sources = [{"name": "a", "paths": ["a.jsonl"]}, {"name": "b", "paths": ["b.jsonl.gz"]}]
    found = []
    for workers in (1, 3):
        tree = recipe_of(tmp_path, sources, workers=workers, shard_tokens=2048)
        manifest, _, _ = prepared(checked(tree), tmp_path / str(workers))
        assert not (tmp_path / str(workers) / "prepare" / "units").exists()
        found.append((checksums(tmp_path / str(workers) / "prepare"), manifest.metrics))
    assert found[0] == found[1]
    assert found[0][1]["sources"]["b"]["dropped"] == {"duplicate": 80}


def test_a_finished_stage_is_not_done_again_and_other_work_is_not_overwritten(
    tmp_path: Path,
) -> None:
    write_rows(tmp_path / "a.jsonl", prose(1, 100))
    tree = recipe_of(tmp_path, [{"name": "a", "paths": ["a.jsonl"]}])
    out = tmp_path / "run"
    prepared(checked(tree), out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    prepared(checked({**tree, "prepare": {**tree["prepare"], "workers": 2}}), out)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert after == before
    longer = checked({**tree, "prepare": {**tree["prepare"], "shard_tokens": 4096}})
    with pytest.raises(ArtifactError, match="belongs to another run"):
        prepare.run(longer, RunFolder(out))
    write_rows(tmp_path / "a.jsonl", prose(2, 100))
    with pytest.raises(ArtifactError, match="belongs to another run"):
        prepare.run(checked(tree), RunFolder(out))


def test_the_vocabulary_is_learnt_from_training_documents_of_every_source(
    tmp_path: Path,
) -> None:
    """A word that only validation documents contain is not a token; one of each source is."""
    texts = prose(5, 400)
    marked = {}
    for name, mark in (("a", "Quetzal"), ("b", "Xylophone")):
        marked[name] = [
            text
            + (
                " Zugzwang Zugzwang"
                if in_validation(content_hash(text), fraction=0.1, seed=1337)
                else f" {mark} {mark}"
            )
            for text in texts
        ]
    # The mark changes the hash, so keep the documents that stay on their side.
    for name, rows in marked.items():
        rows = [
            row
            for row in rows
            if in_validation(content_hash(row), fraction=0.1, seed=1337) == ("Zugzwang" in row)
        ]
        assert any("Zugzwang" in row for row in rows)
        write_rows(tmp_path / f"{name}.jsonl", rows)
    sources = [{"name": n, "paths": [f"{n}.jsonl"]} for n in marked]
    tree = recipe_of(tmp_path, sources)
    tree["tokenizer"].update(vocab_size=350, train_bytes=100_000)
    manifest = tokenizer.run(checked(tree), RunFolder(tmp_path / "run"))
    vocabulary = Tokenizer.from_pretrained(tmp_path / "run/tokenizer")
    assert len(vocabulary.encode(" Quetzal")) == len(vocabulary.encode(" Xylophone")) == 1
    assert len(vocabulary.encode(" Zugzwang")) > 2
    assert manifest.metrics["vocab_size"] == 350
    assert abs(manifest.metrics["trained_on"]["bytes"] - 100_000) < 2_000


def test_a_pretrained_tokenizer_is_copied_with_its_ids(tmp_path: Path) -> None:
    original = Tokenizer.train(prose(1, 50), 300)
    original.save(tmp_path / "vocabulary")
    write_rows(tmp_path / "a.jsonl", prose(1, 100))
    tree = recipe_of(tmp_path, [{"name": "a", "paths": ["a.jsonl"]}])
    tree["tokenizer"] = {"kind": "pretrained", "source": "vocabulary"}
    _, _, vocabulary = prepared(checked(tree), tmp_path / "run")
    assert vocabulary.fingerprint == original.fingerprint
    config = json.loads((tmp_path / "run/tokenizer/tokenizer_config.json").read_text())
    assert config["model_max_length"] == 64
    again = tokenizer.run(checked(tree), RunFolder(tmp_path / "run"))
    assert again.metrics["fingerprint"] == original.fingerprint
    tree["tokenizer"]["source"] = "./nowhere"
    with pytest.raises(TokenizerError, match="no such folder"):
        tokenizer.run(checked(tree), RunFolder(tmp_path / "other"))


def test_the_shipped_corpora_can_be_prepared(tmp_path: Path) -> None:
    sources = [
        {"name": "primer", "corpus": "primer", "weight": 2},
        {"name": "questions", "corpus": "questions", "weight": 1},
        {"name": "arithmetic", "corpus": "worked-examples", "examples": 60, "weight": 1},
    ]
    manifest, shards, _ = prepared(checked(recipe_of(tmp_path, sources)), tmp_path / "run")
    assert all(stream.tokens for stream in shards.train.values())
    assert shards.weights == {"primer": 2.0, "questions": 1.0, "arithmetic": 1.0}
    assert manifest.metrics["sources"]["arithmetic"]["documents_in"] == 60


def test_max_documents_limits_what_is_read(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", prose(1, 100))
    source = {"name": "a", "paths": ["a.jsonl"], "max_documents": 60}
    manifest, _, _ = prepared(checked(recipe_of(tmp_path, [source])), tmp_path / "run")
    assert manifest.metrics["total"]["documents_in"] == 60


@pytest.mark.parametrize("name", ["a.jsonl", "b.jsonl.gz"])
def test_max_bytes_ends_a_source_with_the_document_that_reaches_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for any number of processes, also when the next source repeats what is beyond."""
    monkeypatch.setattr("tallyformer.data.units.CHUNK_ROWS", 30)
    texts = prose(1, 200)
    write_rows(tmp_path / name, ["tiny", *texts[:50], texts[0], *texts[50:]])
    write_rows(tmp_path / "c.jsonl", texts)
    limit = sum(len(text) for text in [*texts[:100], texts[0]]) + 1
    sources = [
        {"name": "s", "paths": [name], "max_bytes": limit},
        {"name": "rest", "paths": ["c.jsonl"]},
    ]
    found = []
    for workers in (1, 3):
        tree = recipe_of(tmp_path, sources, workers=workers)
        manifest, shards, vocabulary = prepared(checked(tree), tmp_path / str(workers))
        kept = {split: decoded(shards, vocabulary, split) for split in ("train", "validation")}
        assert {*kept["train"]["s"], *kept["validation"]["s"]} == set(texts[:101])
        assert {*kept["train"]["rest"], *kept["validation"]["rest"]} == set(texts[101:])
        found.append((checksums(tmp_path / str(workers) / "prepare"), manifest.metrics))
    assert found[0] == found[1]
    counts = found[0][1]["sources"]["s"]
    # Units of 30 rows: the one that holds the 103rd row ends with the 120th.
    assert counts["documents_in"] == 120
    assert counts["dropped"] == {"beyond_max_bytes": 17, "duplicate": 1, "too_short": 1}


def test_a_max_bytes_that_is_not_reached_changes_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", prose(1, 100))
    sources = [{"name": "a", "paths": ["a.jsonl"], "max_bytes": 10**9}]
    manifest, _, _ = prepared(checked(recipe_of(tmp_path, sources)), tmp_path / "run")
    assert manifest.metrics["total"]["dropped"] == {}


@pytest.mark.parametrize("limit", ["max_documents", "max_bytes"])
def test_the_vocabulary_is_learnt_from_nothing_beyond_a_sources_limit(
    tmp_path: Path, limit: str
) -> None:
    texts = prose(1, 300)
    write_rows(tmp_path / "a.jsonl", texts)
    write_rows(tmp_path / "b.jsonl", ["Zugzwang Zugzwang Zugzwang " * 20] * 9)
    most = 300 if limit == "max_documents" else sum(map(len, texts)) - 10
    source = {"name": "s", "paths": ["a.jsonl", "b.jsonl"], limit: most}
    tree = recipe_of(tmp_path, [source])
    tree["tokenizer"]["train_bytes"] = 10**7
    manifest = tokenizer.run(checked(tree), RunFolder(tmp_path / "run"))
    vocabulary = Tokenizer.from_pretrained(tmp_path / "run/tokenizer")
    assert len(vocabulary.encode(" Zugzwang")) > 2
    assert 200 < manifest.metrics["trained_on"]["documents"] < 300


def test_no_pair_that_fine_tuning_holds_out_has_been_pretrained_on(tmp_path: Path) -> None:
    corpora: list[dict[str, Any]] = [
        {"name": "questions", "corpus": "questions"},
        {"name": "worked-examples", "corpus": "worked-examples", "examples": 400},
    ]
    tree = recipe_of(tmp_path, corpora, validation_fraction=0.05)
    recipe = checked(tree)
    _, shards, vocabulary = prepared(recipe, tmp_path / "run")
    trained, kept_back = (
        {text for texts in decoded(shards, vocabulary, split).values() for text in texts}
        for split in ("train", "validation")
    )
    sections = [PairSource.model_validate(corpus) for corpus in corpora]
    for fraction in (0.05, 0.02):
        pairs = split_pairs(sections, data_root=".", validation_fraction=fraction, seed=recipe.seed)
        held_out = {f"{pair.prompt}\n\n{pair.response}" for pair in pairs.validation}
        # Small talk and the like are not text of pretraining, so they are on neither side there.
        assert len(held_out & kept_back) > 20
        assert not held_out & trained


def test_invalid_utf8_is_dropped_and_counted_where_the_recipe_says_so(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", prose(1, 100))
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b'{"text": "\xff' + b"x" * 50 + b'"}\n')
    source = {"name": "a", "paths": ["a.jsonl"]}
    strict = checked(recipe_of(tmp_path, [source]))
    with pytest.raises(DataError, match=r"a\.jsonl:101: not valid UTF-8 at byte 10"):
        prepared(strict, tmp_path / "strict")
    lenient = checked(recipe_of(tmp_path, [source], on_invalid_utf8="drop"))
    manifest, _, _ = prepared(lenient, tmp_path / "lenient")
    assert manifest.metrics["total"]["dropped"] == {"invalid_utf8": 1}


def test_a_source_of_which_nothing_is_left_is_an_error(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", prose(1, 100))
    write_rows(tmp_path / "b.jsonl", ["tiny", "also tiny", prose(1, 1)[0]])
    sources = [{"name": n, "paths": [f"{n}.jsonl"]} for n in "ab"]
    message = r"source 'b': none of its 3 documents is kept \(1 duplicate, 2 too_short\)"
    with pytest.raises(DataError, match=message) as caught:
        prepared(checked(recipe_of(tmp_path, sources)), tmp_path / "run")
    assert str(caught.value).endswith(". Lower prepare.min_chars, or remove the source")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"corpus": "primer", "text_field": "body"},
            "text_field is for a dataset, or paths to files",
        ),
        ({"corpus": "questions", "examples": 9}, "examples is for corpus: worked-examples"),
        ({"paths": ["a"], "dataset_split": "test"}, "dataset_split is for dataset"),
        (
            {"corpus": "primer", "dataset_config": "v2", "dataset_split": "test", "examples": 9},
            "dataset_config is for dataset; dataset_split is for dataset; "
            "examples is for corpus: worked-examples. It would do nothing here. Remove it",
        ),
    ],
)
def test_a_key_that_means_nothing_for_a_source_is_an_error(
    tmp_path: Path, source: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        checked(recipe_of(tmp_path, [{"name": "s", **source}]))


def test_a_recipe_with_every_default_written_out_loads_again(tmp_path: Path) -> None:
    sources = [
        {"name": "a", "corpus": "primer"},
        {"name": "b", "corpus": "worked-examples", "examples": 9},
        {"name": "c", "paths": ["a.jsonl"], "text_field": "body", "max_bytes": 9},
        {"name": "d", "dataset": "x/y", "dataset_config": "v2", "max_documents": 9},
    ]
    tree = recipe_of(tmp_path, sources)
    pairs = [{"name": "a", "corpus": "questions"}, {"name": "b", "paths": ["a.jsonl"]}]
    tree["sft"] = {"steps": 1, "sources": pairs}
    recipe = checked(tree)
    assert checked(yaml.safe_load(recipe_as_yaml(recipe))) == recipe


def test_weights_are_for_all_sources_or_for_none(tmp_path: Path) -> None:
    sources = [{"name": "a", "corpus": "primer", "weight": 1}, {"name": "b", "corpus": "primer"}]
    with pytest.raises(ConfigError, match="for all sources or for none; missing: b"):
        checked(recipe_of(tmp_path, sources))


# --- through the command line, in processes of their own ---------------------------------------


def start(stage: str, recipe: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, stage, "--recipe", recipe, "--out", recipe.parent / "run", "--resume"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def many_units(folder: Path, units: int = 8, workers: int = 2) -> Path:
    """A recipe with one unit a source, so that it can be killed between units."""
    for n in range(units):
        write_rows(folder / f"{n:02d}.jsonl", prose(n, 200))
    sources = [{"name": f"s{n}", "paths": [f"{n:02d}.jsonl"]} for n in range(units)]
    recipe = folder / "recipe.yaml"
    tree = recipe_of(folder, sources, workers=workers, shard_tokens=4096)
    recipe.write_text(yaml.safe_dump(tree))
    return recipe


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition() and process.poll() is None:
        time.sleep(0.002)


def test_a_run_killed_at_any_moment_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        recipe = many_units(folder)
        assert finish(start("tokenizer", recipe))[0] == 0
    assert finish(start("prepare", whole / "recipe.yaml"))[0] == 0
    folder = broken / "run/prepare"
    kept: dict[str, int] = {}
    conditions: list[Callable[[], bool]] = [
        lambda: len(list(folder.glob("units/*.npz"))) >= 2,
        lambda: len(list(folder.glob("units/*.npz"))) >= 5,
        lambda: any(folder.glob("train/s2/*.bin*")),
    ]
    for condition in conditions:
        process = start("prepare", broken / "recipe.yaml")
        wait_until(condition, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (folder / "manifest.json").exists()
        now = {path.name: path.stat().st_mtime_ns for path in folder.glob("units/*.npz")}
        assert kept.items() <= now.items(), "a finished unit was made again"
        kept = now
    status, errors = finish(start("prepare", broken / "recipe.yaml"))
    assert status == 0, errors
    assert checksums(folder) == checksums(whole / "run/prepare")
    manifests = [json.loads((f / "run/prepare/manifest.json").read_text()) for f in (whole, broken)]
    assert manifests[0]["metrics"] == manifests[1]["metrics"]


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", prose(0, 25_000, words=6))
    recipe = tmp_path / "recipe.yaml"
    tree = recipe_of(tmp_path, [{"name": "s", "paths": ["a.jsonl"]}], workers=2)
    recipe.write_text(yaml.safe_dump(tree))
    assert finish(start("tokenizer", recipe))[0] == 0
    process = start("prepare", recipe, start_new_session=True)
    units = tmp_path / "run/prepare/units"
    wait_until(lambda: any(units.glob("*.npz*")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()  # returns when no process holds its pipes any more

    def alive() -> bool:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    deadline = time.monotonic() + 20
    while alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive()


def test_a_killed_worker_is_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", prose(0, 25_000, words=6))
    recipe = tmp_path / "recipe.yaml"
    tree = recipe_of(tmp_path, [{"name": "s", "paths": ["a.jsonl"]}], workers=2)
    recipe.write_text(yaml.safe_dump(tree))
    assert finish(start("tokenizer", recipe))[0] == 0
    process = start("prepare", recipe)
    command = psutil.Process(process.pid)

    def workers() -> list[psutil.Process]:
        return [c for c in command.children() if "spawn_main" in " ".join(c.cmdline())]

    wait_until(lambda: len(workers()) == 2, process)
    workers()[0].kill()
    status, errors = finish(process)
    assert status == 3
    assert "a worker process was killed" in errors.strip().splitlines()[-1], errors
    assert finish(start("prepare", recipe))[0] == 0


def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    """The limit on a file's size stands in for the disk: both refuse a write half-way."""
    recipe = many_units(tmp_path, units=3, workers=1)
    assert finish(start("tokenizer", recipe))[0] == 0

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    status, errors = finish(start("prepare", recipe, preexec_fn=limit))
    assert status == 3
    last = errors.strip().splitlines()[-1]
    assert "cannot be written" in last and "ulimit -f" in last, errors
    assert not list((tmp_path / "run/prepare").rglob("*.bin"))
    assert finish(start("prepare", recipe))[0] == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.write_bytes(f.read_bytes()[:-20]), "damaged or cut off"),
        (lambda f: f.write_bytes(b""), "is empty"),
        (lambda f: f.unlink(), "no file matches"),
    ],
    ids=["cut", "empty", "missing"],
)
def test_bad_input_is_one_line_with_exit_status_3(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    write_rows(tmp_path / "a.jsonl.gz", prose(1, 100))
    Tokenizer.train(prose(1, 50), 300).save(tmp_path / "vocabulary")
    tree = recipe_of(tmp_path, [{"name": "a", "paths": ["a.jsonl.gz"]}], workers=2)
    tree["tokenizer"] = {"kind": "pretrained", "source": "vocabulary"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    assert finish(start("tokenizer", tmp_path / "recipe.yaml"))[0] == 0
    damage(tmp_path / "a.jsonl.gz")
    status, errors = finish(start("prepare", tmp_path / "recipe.yaml"))
    assert status == 3
    assert message in errors.strip().splitlines()[-1], errors
    assert "Traceback" not in errors


def test_one_text_file_is_trained_on_and_validated_on(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("\n\n".join(prose(1, 300)))
    recipe = checked(recipe_of(tmp_path, [{"name": "book", "paths": ["book.txt"]}]))
    manifest, shards, _ = prepared(recipe, tmp_path / "run")
    counts = manifest.metrics["sources"]["book"]
    assert counts["documents_in"] == counts["documents"]["total"] + sum(counts["dropped"].values())
    assert counts["passage_characters"] > 0
    validation, whole = (counts["tokens"][split] for split in ("validation", "total"))
    assert 0.03 < validation / whole < 0.25
    assert shards.train["book"].tokens > 64 < shards.validation["book"].tokens


def test_an_input_that_changes_while_it_is_read_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "a.jsonl", prose(1, 100))
    recipe = checked(recipe_of(tmp_path, [{"name": "a", "paths": ["*.jsonl"]}], workers=1))
    run = RunFolder(tmp_path / "run")
    tokenizer.run(recipe, run)

    def written_to_meanwhile(*args: Any, **options: Any) -> Any:
        result = write_shards(*args, **options)
        with (tmp_path / "a.jsonl").open("a") as file:
            file.write('{"text": "one more"}\n')
        return result

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "write_shards", written_to_meanwhile)
        with pytest.raises(DataError, match=r"a/a\.jsonl: has changed while it was being read"):
            prepare.run(recipe, run)
    assert not run.stage("prepare").exists()
    with pytest.raises(DataError, match=r"a/a\.jsonl: has changed since the stage tokenizer"):
        prepare.run(recipe, run)
    write_rows(tmp_path / "a.jsonl", prose(1, 100))
    assert prepare.run(recipe, run).metrics["sources"]["a"]["empty_files"] == 0


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    Tokenizer.train(prose(1, 50), 300).save(tmp_path / "vocabulary")
    texts = prose(1, 160, words=3600)
    peaks = []
    for size in (1, 5):
        folder = tmp_path / str(size)
        folder.mkdir()
        # 4 MB a file: one unit, then five.
        for n in range(size):
            write_rows(folder / f"{n}.jsonl", [f"{n} {text}" for text in texts])
        tree = recipe_of(folder, [{"name": "s", "paths": ["*.jsonl"]}])
        tree["tokenizer"] = {"kind": "pretrained", "source": "../vocabulary"}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
        script = (
            "import pathlib, re, sys\n"
            "from tallyformer.cli.main import invoke\n"
            "for stage in ('tokenizer', 'prepare'):\n"
            "    invoke([stage, '--recipe', sys.argv[1], '--out', sys.argv[2]])\n"
            "status = pathlib.Path('/proc/self/status').read_text()\n"
            "print(int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) / 1024)\n"
        )
        output = subprocess.run(
            [sys.executable, "-c", script, folder / "recipe.yaml", folder / "run"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        peaks.append(float(output.split()[-1]))
    # Five times the text is 16 MB more and as much again in tokens; the allocator's noise is
    # a few MB.
    assert peaks[1] - peaks[0] < 16, peaks


def test_counts_are_plain_sums() -> None:
    from tallyformer.data.prepare import SourceCounts

    one = SourceCounts(3, Counter(train=2), Counter(duplicate=1), Counter(train=9), Counter())
    both = SourceCounts.total([one, one])
    assert both.as_dict()["documents_in"] == 6
    assert both.as_dict()["dropped"] == {"duplicate": 2}
    assert one.as_dict()["documents"] == {"train": 2, "validation": 0, "total": 2}
