"""The TallyFormer decoder: its Hugging Face classes, its presets and its cost in FLOPs.

Nothing is imported here, so that `tallyformer.model.presets` and `tallyformer.model.flops` load
without torch. Import from the files: `from tallyformer.model.modeling_tallyformer import ...`.
"""
