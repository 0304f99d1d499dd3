"""Every setting of a run: `schema` composes the dataclasses that stand beside the classes they build."""
