"""LPIPS and FID equal the figures of their packages, with random weights, since the published ones are not installed."""

import numpy as np
import pytest
import torch
from PIL import Image

from encoders.features.perceptual import load_perceptual
from metrics.measures.fid import Gaussian, frechet_of, load_inception
from stylegan2.images import to_tensor


def pictures(seed: int, count: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC)) for c in coarse]
    )


@pytest.mark.slow  # 230 MB of AlexNet are written
def test_lpips_is_the_packages_figure(tmp_path, monkeypatch):
    import lpips
    from torchvision.models import alexnet

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.manual_seed(0)
    torch.save(alexnet(weights=None).state_dict(), tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    distance = load_perceptual("alex", "lpips")
    assert distance.name == "lpips-alex"
    a, b = pictures(0, 3, 128), pictures(1, 3, 128)
    package_distance = lpips.LPIPS(net="alex", verbose=False).eval()
    x, y = (lpips.im2tensor(p) for p in (a[0], b[0]))  # the package's conversion of an image to a tensor
    with torch.inference_mode():
        expected = float(package_distance(x, y))
        actual = distance(to_tensor(a), to_tensor(b))
        assert float(actual[0]) == pytest.approx(expected, rel=1e-4) and expected > 0
        assert torch.allclose(actual, distance(to_tensor(b), to_tensor(a)), rtol=1e-4)  # symmetric
        assert distance(to_tensor(a), to_tensor(a)).abs().max() < 1e-6
        one_by_one = torch.cat([distance(to_tensor(p), to_tensor(q)) for p, q in zip(a, b, strict=True)])
        assert torch.allclose(one_by_one, actual, rtol=1e-4)


@pytest.mark.slow  # two Inception networks on 24 pictures
def test_fid_is_the_packages_figure(tmp_path, monkeypatch):
    import pytorch_fid.inception as package
    from pytorch_fid.fid_score import calculate_frechet_distance, get_activations

    torch.manual_seed(0)

    class Captured(Exception):
        pass

    def capture(self, state_dict, *args, **kwargs):
        raise Captured(self)

    # The shapes are those of the package's own patched network; its weights are random but fixed.
    original = torch.nn.Module.load_state_dict
    monkeypatch.setattr(package, "load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", capture)
    with pytest.raises(Captured) as captured:
        package.fid_inception_v3()
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", original)
    state = captured.value.args[0].state_dict()
    assert state
    torch.save(state, tmp_path / "weights.pth")

    features, reason = load_inception(tmp_path / "weights.pth")
    assert features is not None, reason
    monkeypatch.setattr(package, "load_state_dict_from_url", lambda *_, **__: state)
    package_network = package.InceptionV3([package.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
    sets, ours, paths = [pictures(0, 6, 96), pictures(1, 6, 96)], [], []
    for number, frames in enumerate(sets):
        gaussian = Gaussian()
        for part in (frames[:4], frames[4:]):
            gaussian.update(features(to_tensor(part)))
        ours.append(gaussian)
        paths.append([tmp_path / f"{number}_{i}.png" for i in range(len(frames))])
        for path, frame in zip(paths[-1], frames, strict=True):
            Image.fromarray(frame).save(path)
    activations = [get_activations(p, package_network, batch_size=3, num_workers=0) for p in paths]
    moments = [(x.mean(0), np.cov(x, rowvar=False)) for x in activations]
    np.testing.assert_allclose(ours[0].mean, moments[0][0], rtol=1e-4, atol=1e-6)
    expected = calculate_frechet_distance(*moments[0], *moments[1])
    assert frechet_of(ours[0], ours[1], None)[0] == pytest.approx(float(expected), rel=1e-4)
