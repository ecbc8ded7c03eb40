"""Families of published models, and small stand-ins for them: the same architecture, special tokens and chat template,
with few and random weights."""

from squadron.train.models.families.family import Family
from squadron.train.models.families.make import make_family_model, read_template, template_text
from squadron.train.models.families.table import FAMILIES, find_family

__all__ = ["FAMILIES", "Family", "find_family", "make_family_model", "read_template", "template_text"]
