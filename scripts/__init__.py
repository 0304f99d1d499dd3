"""One script per stage; run them from the repository's root."""
