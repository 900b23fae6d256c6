"""Recipes: frozen pydantic sections, one file per concern, and the loader that checks them."""

from tallyformer.config.load import check_recipe, load_recipe, recipe_as_yaml
from tallyformer.config.recipe import Recipe

__all__ = ["Recipe", "check_recipe", "load_recipe", "recipe_as_yaml"]
