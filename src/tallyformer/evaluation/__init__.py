"""How good a model is: perplexity, facts, samples."""
