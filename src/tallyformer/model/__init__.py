"""The TallyFormer decoder: its Hugging Face classes and its cost in FLOPs.

Nothing is imported here, so that `tallyformer.model.flops` loads without torch. Import from the
files: `from tallyformer.model.modeling_tallyformer import ...`.
"""
