"""The model card of an exported folder, from what the run's manifests record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tallyformer.artifacts.stages import TRAINING_STAGES
from tallyformer.config import Recipe
from tallyformer.config.data import PairSource, TextSource

UNKNOWN_LICENCE = "not recorded; fill in before publishing"
OWN_LICENCE = "Apache-2.0 (ships with TallyFormer)"
LOWEST_TRANSFORMERS = "5.4"
"""The first version whose configurations and masks are those that the folder's code is written for.
It is the one in pyproject.toml."""

Metrics = Mapping[str, Mapping[str, Any]]


def model_card(recipe: Recipe, metrics: Metrics, *, model_class: str, parameters: int) -> str:
    """README.md of a model folder.

    Args:
        recipe: what the model was trained by.
        metrics: metrics of every finished stage, by stage.
        model_class: the class that loads the folder.
        parameters: how many the model has.
    """
    parts = [
        _front_matter(),
        f"# {recipe.name}\n",
        *([recipe.description.strip() + "\n"] if recipe.description else []),
        _use(model_class),
        _shape(recipe, model_class, parameters),
        _training(metrics),
        *_data(recipe, metrics),
        _evaluation(metrics),
        _limits(),
    ]
    return "\n".join(part for part in parts if part)


def _front_matter() -> str:
    return "---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n"


def _use(model_class: str) -> str:
    own_code = "" if model_class == "LlamaForCausalLM" else ", trust_remote_code=True"
    return f"""## Use

It needs transformers >= {LOWEST_TRANSFORMERS}.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # the one that this file is in
tokenizer = AutoTokenizer.from_pretrained(folder{own_code})
model = AutoModelForCausalLM.from_pretrained(folder{own_code})
messages = [{{"role": "user", "content": "What is compound interest?"}}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
output = model.generate(**inputs, max_new_tokens=128)
print(tokenizer.decode(output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```
"""


def _shape(recipe: Recipe, model_class: str, parameters: int) -> str:
    model = recipe.model
    rows = [
        ("class", f"`{model_class}`"),
        ("parameters", f"{parameters:,}"),
        ("blocks", model.num_hidden_layers),
        ("hidden size", model.hidden_size),
        ("heads", model.num_attention_heads),
        ("MLP", f"{model.mlp_type}, {model.intermediate_size}"),
        ("context", f"{model.max_position_embeddings} tokens"),
    ]
    return _section("Model", ("", ""), rows)


def _training(metrics: Metrics) -> str:
    rows = [
        (
            stage,
            _number(found.get("tokens"), ","),
            _number(found.get("steps") or _steps_of_phases(found), ","),
            _number(found.get("validation_perplexity"), ".2f"),
        )
        for stage in TRAINING_STAGES
        if (found := metrics.get(stage))
    ]
    return _section("Training", ("stage", "tokens read", "steps", "validation perplexity"), rows)


def _steps_of_phases(found: Mapping[str, Any]) -> int | None:
    return sum(phase["steps"] for phase in found.get("phases", ())) or None


def _data(recipe: Recipe, metrics: Metrics) -> tuple[str, str]:
    texts = metrics.get("prepare", {}).get("sources", {})
    pairs = metrics.get("sft", {}).get("pairs", {})
    of_texts = [
        _source_row(source, texts.get(source.name, {}).get("tokens", {}).get("train"))
        for source in recipe.prepare.sources
    ]
    of_pairs = [
        _source_row(source, pairs.get(source.name, {}).get("train"))
        for source in (recipe.sft.sources if recipe.sft else ())
    ]
    return (
        _section("Texts", ("source", "origin", "training tokens", "licence"), of_texts),
        _section("Instruction pairs", ("source", "origin", "pairs", "licence"), of_pairs),
    )


def _source_row(source: TextSource | PairSource, size: int | None) -> tuple[str, str, str, str]:
    origin = source.dataset or ", ".join(source.paths) or f"corpus {source.corpus}"
    licence = OWN_LICENCE if source.corpus else UNKNOWN_LICENCE
    return _plain(source.name), _plain(origin), _number(size, ","), licence


def _evaluation(metrics: Metrics) -> str:
    found = metrics.get("evaluate", {})
    rows = [
        (f"perplexity of {model} on {_plain(domain)}", _number(value, ".2f"))
        for model, domains in found.get("perplexity", {}).items()
        for domain, value in domains.items()
    ]
    rows += [
        (f"perplexity of held-out responses {when}", _number(value, ".2f"))
        for when, value in found.get("response_perplexity", {}).items()
    ]
    rows += [
        (f"held-out {name} right", f"{found[name]['right']} of {found[name]['asked']}")
        for name in ("facts", "manners", "arithmetic")
        if name in found
    ]
    return _section("Evaluation", ("measure", "value"), rows)


def _limits() -> str:
    return (
        "## Limits\n\n"
        "A small language model. It states wrong facts and wrong sums with confidence; check what "
        "it says. It gives no financial, legal or tax advice.\n"
    )


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return ""
    return "\n".join([f"## {title}\n", *_table(head, rows)]) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(str(cell) for cell in row) + " |"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _plain(text: str) -> str:
    """A recipe's text as one cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())
