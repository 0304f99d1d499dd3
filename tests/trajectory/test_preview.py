"""The preview of a validation clip in TensorBoard."""

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_stage1 import DIM, FEATURES, parts

from stylegan2.networks.generator import StyleGAN2
from stylegan2.render import render
from trajectory.data.windows import read_clip
from trajectory.training.preview import PreviewMaker
from trajectory.training.stage1_loop import train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_frames_and_opening_of_a_validation_clip_go_to_tensorboard(tmp_path):
    torch.manual_seed(0)
    generator = StyleGAN2(8, z_dim=DIM, w_dim=DIM, channels={4: 8, 8: 8}, mapping_layers=1).eval()
    pieces = parts(tmp_path, pictures_every=10)
    clip, axis = pieces["validation"][0], np.array([1.0, -1.0], np.float32)
    maker = PreviewMaker(generator, pieces["validation"], FEATURES)
    train(**pieces, folder=tmp_path / "run", lip_axis=axis, preview=maker)
    logged = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert [event.step for event in logged.Images("pictures/strip")] == [10, 20]
    assert [event.step for event in logged.Images("pictures/opening")] == [10, 20]

    preview = maker(pieces["net"], pieces["space"], torch.from_numpy(axis))
    assert preview.strip.shape == (2 * 8, 8 * 6, 3)
    batch = read_clip(clip, FEATURES)
    last = next(iter(render(generator, batch.w_ref[0][None] + batch.d[0, -1:])))
    np.testing.assert_array_equal(preview.strip[:8, -8:], last)
    true, predicted = preview.opening.axes[0].lines
    expected = pieces["space"].encode(torch.from_numpy(batch.d))[0].numpy() @ axis
    np.testing.assert_allclose(np.asarray(true.get_ydata()), expected - expected.mean(), atol=1e-5)
    assert len(np.asarray(predicted.get_ydata())) == clip.num_frames
