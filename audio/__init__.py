"""Speech sound: reading it, and one feature window per video frame."""
