"""All settings of a run; `schema` composes the dataclasses, most of which are defined beside the classes that they
configure.
"""
