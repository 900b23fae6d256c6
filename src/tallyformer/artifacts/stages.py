"""The names of the stages."""

TRAINING_STAGES = ("pretrain", "teacher", "distill", "sft")
"""Stages that train a model, in the order of a run."""
STAGES = ("tokenizer", "prepare", *TRAINING_STAGES, "merge", "evaluate", "export")
"""Every stage, in the order of a full run."""
