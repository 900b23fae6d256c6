"""A saved folder: whole, tied as it was, and usable where the package is not installed."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch

from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_model_loads_as_it_was(shape, dtype, build, ids, tmp_path):
    model = build(**shape).to(dtype)
    model.save_pretrained(tmp_path)
    again = TallyFormerForCausalLM.from_pretrained(tmp_path)
    assert again.dtype == dtype
    assert torch.equal(again(ids).logits, model(ids).logits)
    tied = model.config.tie_word_embeddings
    assert (again.lm_head.weight is again.model.token_embed.weight) == tied


def test_the_folder_runs_where_the_package_is_not_installed(build, ids, tmp_path, monkeypatch):
    model = build()
    model.save_pretrained(tmp_path / "model")
    torch.save({"ids": ids, "logits": model(ids).logits.detach()}, tmp_path / "wanted.pt")
    script = """
        import sys
        from importlib.abc import MetaPathFinder

        class NoTallyFormer(MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "tallyformer":
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, NoTallyFormer())
        import torch
        from transformers import (
            AutoConfig,
            AutoModel,
            AutoModelForCausalLM,
            AutoModelForSequenceClassification,
            AutoModelForTokenClassification,
        )

        folder = sys.argv[1]
        wanted = torch.load(folder + "/wanted.pt")
        model = AutoModelForCausalLM.from_pretrained(folder + "/model", trust_remote_code=True)
        torch.testing.assert_close(model(wanted["ids"]).logits, wanted["logits"])
        assert not [name for name in sys.modules if name.split(".")[0] == "tallyformer"]
        model.generate(wanted["ids"], max_new_tokens=3)
        # What was loaded as remote code can be saved and loaded once more.
        model.save_pretrained(folder + "/again")
        AutoModelForCausalLM.from_pretrained(folder + "/again", trust_remote_code=True)
        # So are the other classes that the folder offers, whichever was saved.
        for auto in (AutoModelForSequenceClassification, AutoModelForTokenClassification):
            classifier = auto.from_pretrained(
                folder + "/model", trust_remote_code=True, num_labels=3
            ).eval()
            assert torch.equal(classifier.model.token_embed.weight, model.lm_head.weight)
            classifier.save_pretrained(folder + "/" + auto.__name__)
            again = auto.from_pretrained(folder + "/" + auto.__name__, trust_remote_code=True)
            assert torch.equal(again(wanted["ids"]).logits, classifier(wanted["ids"]).logits)
        body = AutoModel.from_pretrained(folder + "/" + auto.__name__, trust_remote_code=True)
        body.save_pretrained(folder + "/body")
        AutoModelForCausalLM.from_pretrained(folder + "/body", trust_remote_code=True)
        # A model from scratch, as remote code, starts as the package's does.
        fresh = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(folder + "/model", trust_remote_code=True),
            trust_remote_code=True,
        )
        block = fresh.model.blocks[0]
        assert block.attention.proj.weight.std() < 0.75 * block.attention.query.weight.std()
    """
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_the_folder_names_its_own_classes(build, tmp_path):
    build().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_tallyformer.TallyFormerConfig",
        "AutoModel": "modeling_tallyformer.TallyFormerModel",
        "AutoModelForCausalLM": "modeling_tallyformer.TallyFormerForCausalLM",
        "AutoModelForSequenceClassification": (
            "modeling_tallyformer.TallyFormerForSequenceClassification"
        ),
        "AutoModelForTokenClassification": (
            "modeling_tallyformer.TallyFormerForTokenClassification"
        ),
    }
    assert config["model_type"] == "tallyformer"
    assert config["architectures"] == ["TallyFormerForCausalLM"]
    copied = {file.name for file in tmp_path.glob("*.py")}
    assert copied == {
        "attention.py",
        "block.py",
        "classification.py",
        "configuration_tallyformer.py",
        "mlp.py",
        "modeling_tallyformer.py",
        "norm.py",
        "protocol.py",
        "rope.py",
    }
    assert not [f for f in tmp_path.glob("*.py") if "import tallyformer" in f.read_text()]


def test_a_device_map_loads_the_same_model(build, ids, tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    loaded = TallyFormerForCausalLM.from_pretrained(tmp_path, device_map={"": "cpu"})
    assert torch.equal(loaded(ids).logits, model(ids).logits)
