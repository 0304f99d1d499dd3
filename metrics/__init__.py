"""Measures of a generated talking head against the true clip, the control rows, and the report."""
