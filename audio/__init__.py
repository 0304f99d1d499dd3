"""Speech audio: reading it, one feature window per video frame, and the audio-visual sync networks."""
