"""Raw sound from a pipe."""

import io

import numpy as np
import pytest

from audio.live_sound import pcm_blocks
from audio.waveform import AudioError


class Pipe(io.BytesIO):
    """Gives three bytes at a time."""

    def read1(self, size=-1):
        return super().read1(3)


def test_samples_are_whole_however_the_bytes_come():
    samples = np.array([0, 1, -1, 32767, -32768, 500, 7], "<i2")
    read = np.concatenate(list(pcm_blocks(Pipe(samples.tobytes() + b"x"))))
    np.testing.assert_array_equal(read, samples.astype(np.float32) / 32768)


def test_a_pipe_without_sound_or_with_a_file_is_refused():
    with pytest.raises(AudioError, match="without sound"):
        list(pcm_blocks(io.BytesIO(b"")))
    with pytest.raises(AudioError, match="is a wav file"):
        list(pcm_blocks(io.BytesIO(b"RIFF1234WAVEfmt ")))
