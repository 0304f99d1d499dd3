"""Evaluation of generated videos: measures on arrays, scoring of clips and control baselines, and the report.

Imports go one way: report -> scoring -> measures.
"""
