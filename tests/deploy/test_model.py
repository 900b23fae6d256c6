"""The model that ships with the image is the quickstart's, whole, small, and answers."""

from __future__ import annotations

from pathlib import Path

import yaml

from tallyformer.artifacts.json_files import read_json
from tallyformer.artifacts.manifest import sha256
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "deploy" / "model"


def test_it_has_the_shape_of_the_quickstart_and_is_whole() -> None:
    recipe = yaml.safe_load((ROOT / "recipes/quickstart.yaml").read_text(encoding="utf-8"))
    config = read_json(MODEL / "config.json", fix="")
    shape = {k: v for k, v in recipe["model"].items() if k != "dropout"}
    assert {name: config[name] for name in shape} == shape
    assert config["quantization_config"]["bits"] == 8
    files = read_json(MODEL / "manifest.json", fix="")["files"]
    assert {name: entry["sha256"] for name, entry in files.items()} == {
        file.name: sha256(file) for file in MODEL.iterdir() if file.name != "manifest.json"
    }
    assert sum(file.stat().st_size for file in MODEL.iterdir()) < 8_000_000


def test_it_answers_what_the_page_suggests() -> None:
    llm = LLM.from_pretrained(MODEL)
    greedy = SamplingParams(temperature=0, max_tokens=60)
    for question, word in (("What is inflation?", "prices"), ("What is a share?", "ownership")):
        assert word in llm.chat([{"role": "user", "content": question}], greedy).text
