"""The Fréchet distance against closed forms and pytorch-fid, and the reason that is reported if there is no FID."""

import numpy as np
import pytest
import torch

from metrics.measures.fid import Gaussian, frechet_distance, frechet_of, load_inception
from stylegan2.public.catalogue import path_of


def gaussian(x: np.ndarray) -> Gaussian:
    g = Gaussian()
    for part in np.array_split(x, 7):
        g.update(part)
    return g


def test_running_moments_match_numpy():
    x = np.random.default_rng(0).normal(5, 2, (50, 6))
    g = gaussian(x)
    np.testing.assert_allclose(g.mean, x.mean(axis=0))
    np.testing.assert_allclose(g.covariance, np.cov(x, rowvar=False), atol=1e-10)


def test_closed_forms():
    eye = np.eye(4)
    assert frechet_distance(np.zeros(4), eye, np.zeros(4), eye) == pytest.approx(0, abs=1e-12)
    # isotropic: d^2 = |m|^2 + D (s1 - s2)^2
    assert frechet_distance(np.zeros(4), 4 * eye, np.ones(4), 9 * eye) == pytest.approx(4 + 4 * 1)
    # commuting covariances: sum of (sqrt a - sqrt b)^2
    a, b = np.array([1.0, 4, 9, 0]), np.array([4.0, 4, 1, 1])
    assert frechet_distance(np.zeros(4), np.diag(a), np.zeros(4), np.diag(b)) == pytest.approx(1 + 0 + 4 + 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_matches_pytorch_fid():
    from pytorch_fid.fid_score import calculate_frechet_distance

    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(80, 12)) @ rng.normal(size=(12, 12)), rng.normal(0.3, 1, (70, 12))
    stats = x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False)
    assert frechet_distance(*stats) == pytest.approx(calculate_frechet_distance(*stats), rel=1e-6)


def test_fewer_frames_than_features():
    x = np.random.default_rng(2).normal(size=(10, 64))
    g, moved = gaussian(x), gaussian(x + 1)
    assert frechet_distance(g.mean, g.covariance, g.mean, g.covariance) == pytest.approx(0, abs=1e-5)
    assert frechet_of(moved, g, None)[0] == pytest.approx(64, rel=1e-5)


def test_a_missing_fid_has_a_reason(tmp_path):
    full, part = gaussian(np.ones((10, 2))), gaussian(np.ones((9, 2)))
    assert frechet_of(None, None, "no weights") == (None, "no weights")
    assert "same frames" in str(frechet_of(part, full, None)[1])
    features, reason = load_inception(tmp_path / "absent.pth")
    assert features is None and reason and "absent.pth" in reason and "entry=inception_fid" in reason
    (tmp_path / "broken.pth").write_bytes(b"not a weight file")
    torch.save([1.0], tmp_path / "list.pth")
    for name in ("broken.pth", "list.pth"):
        features, reason = load_inception(tmp_path / name)
        assert features is None and reason and "damaged" in reason


def test_nothing_is_downloaded(tmp_path, monkeypatch):
    import pytorch_fid.inception as package

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(
        package, "load_state_dict_from_url", lambda *_, **__: pytest.fail("tried to download")
    )
    assert path_of("inception_fid").parent == tmp_path / "checkpoints"
    assert load_inception()[0] is None


def test_weights_on_disk_are_used(tmp_path, monkeypatch):
    """The constructor gets the tensors of the file instead of a download; the download function is restored."""
    import pytorch_fid.inception as package

    class Stub(torch.nn.Module):
        def __init__(self, normalize_input: bool) -> None:
            super().__init__()
            self.scale = package.load_state_dict_from_url("ignored", progress=True)["scale"]
            self.normalize_input = normalize_input

        def forward(self, x):
            assert not self.normalize_input  # our images are in [-1, 1] already
            return [x.mean(dim=(2, 3), keepdim=True) * self.scale]

    torch.save({"scale": torch.tensor(3.0)}, tmp_path / "inception.pth")
    monkeypatch.setattr(package, "InceptionV3", Stub)
    download = package.load_state_dict_from_url
    features, reason = load_inception(tmp_path / "inception.pth")
    assert features is not None and reason is None and package.load_state_dict_from_url is download
    np.testing.assert_allclose(features(torch.ones(2, 3, 8, 8)), np.full((2, 3), 3.0))
