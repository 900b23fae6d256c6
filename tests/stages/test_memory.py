"""What a stage has held is free when it ends, so that the next one has the memory."""

from __future__ import annotations

import gc
from typing import Any

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.stages import distill, pretrain, sft, teacher

SHORT = {"steps": 2, "micro_batch": 4, "gradient_accumulation": 1, "evaluations": 1}


def models() -> list[int]:
    """Parameters of the models that are alive."""
    alive = (one for one in gc.get_objects() if type(one) is TallyFormerForCausalLM)
    return [model.num_parameters() for model in alive]


def test_no_model_outlives_its_training(prepared: RunFolder, make_recipe: Any) -> None:
    """Without the collector of cycles, which comes late where there are few but large objects."""
    whole = make_recipe()
    recipe = make_recipe(
        pretrain=SHORT,
        teacher={"model": whole.teacher.model.model_dump(), "train": SHORT},
        distill={"phases": [SHORT]},
        sft={**whole.sft.model_dump(), **SHORT, "epochs": None},
    )
    gc.collect()
    before = models()
    gc.disable()
    try:
        for stage in (pretrain, teacher, distill, sft):
            stage.run(recipe, prepared)
            assert models() == before, stage.__name__
    finally:
        gc.enable()
