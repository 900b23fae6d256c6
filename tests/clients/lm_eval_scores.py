"""lm-eval's scores of a model: lm_eval_scores.py MODEL MODEL_ARGS. Prints its table and
what it is made from, as JSON."""

from __future__ import annotations

import json
import sys

import lm_eval
from lm_eval.tasks import TaskManager
from lm_eval.utils import make_table

TASKS = ("choice", "written", "text")

model, model_args = sys.argv[1:]
tasks = TaskManager(include_path="tasks", include_defaults=False)
results = lm_eval.simple_evaluate(
    model=model,
    model_args=json.loads(model_args),
    tasks=list(TASKS),
    task_manager=tasks,
    batch_size=4,
    bootstrap_iters=0,
    device="cpu",
)
print("SCORES")
print(
    json.dumps(
        {
            "table": make_table(results),
            "samples": {
                task: [
                    sample["filtered_resps"]
                    for sample in sorted(results["samples"][task], key=lambda one: one["doc_id"])
                ]
                for task in TASKS
            },
        }
    )
)
