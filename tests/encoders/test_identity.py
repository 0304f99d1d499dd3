"""ArcFace as a measure of identity: its crop, its batches, and weight files that are there, missing or wrong."""

import numpy as np
import pytest
import torch

from encoders.features import identity
from encoders.features.identity import ArcFaceIdentity, arcface_or_none, identity_cosine, load_arcface
from encoders.networks.ir_se import BackboneConfig, IdentityNet
from stylegan2.images import to_tensor
from stylegan2.public.catalogue import CATALOGUE, FOLDER
from stylegan2.weights import WeightsError

pytestmark = pytest.mark.usefixtures("one_thread")


def small() -> IdentityNet:
    torch.manual_seed(0)
    return IdentityNet(BackboneConfig((8, 8, 8, 16, 16), (1, 1, 2, 1)), width=6).eval()


def frames(n: int, side: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3)).astype(np.uint8)


def test_embeds_frames_in_chunks_as_unit_vectors() -> None:
    net, x = small(), frames(5)
    embeddings = ArcFaceIdentity(net, chunk=2).embed(x)
    assert embeddings.shape == (5, 6) and embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(embeddings, net(to_tensor(x)).numpy(), atol=1e-5)
    assert identity_cosine(embeddings[0], embeddings[0]) == pytest.approx(1)
    assert ArcFaceIdentity(net).embed(x[:0]).shape == (0, 6)


def test_only_the_face_counts_at_any_resolution() -> None:
    judge, x = ArcFaceIdentity(small()), frames(1)
    outside = x.copy()
    outside[:, :35], outside[:, 223:], outside[:, :, :32], outside[:, :, 220:] = 0, 0, 0, 0
    np.testing.assert_array_equal(judge.embed(outside), judge.embed(x))
    large = x.repeat(4, axis=1).repeat(4, axis=2)  # a 1024 px frame of the same face
    np.testing.assert_allclose(judge.embed(large), judge.embed(x), atol=1e-5)
    with pytest.raises(ValueError, match="uint8"):
        judge.embed(x.astype(np.float32))


def test_missing_weights_are_reported(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    judge, reason = arcface_or_none()
    assert judge is None and reason is not None
    assert str(tmp_path / CATALOGUE["ir_se50"].file) in reason and "entry=ir_se50" in reason
    with pytest.raises(WeightsError, match="no ArcFace weights"):
        load_arcface()


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04", b"no weights"])
def test_a_damaged_file_is_reported(content, tmp_path) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    judge, reason = arcface_or_none(tmp_path / "model.pth")
    assert judge is None and str(tmp_path / "model.pth") in str(reason) and "\n" not in str(reason)


def test_another_network_is_reported(tmp_path) -> None:
    for state in ({"mapping.fc0.weight": torch.zeros(4, 4)}, small().state_dict()):
        torch.save(state, tmp_path / "model.pth")
        judge, reason = arcface_or_none(tmp_path / "model.pth")
        assert judge is None and "model.pth" in str(reason) and "IR-SE50" in str(reason)


def test_the_public_file_is_read(tmp_path, monkeypatch) -> None:
    """A file with the public names and all 43.8 M parameters."""
    with torch.device("meta"):
        net = IdentityNet()
    net.to_empty(device="cpu")
    noise = torch.randn(2**16, generator=torch.Generator().manual_seed(0)) * 0.02
    for key, value in net.state_dict().items():
        if key.endswith(("running_var", "num_batches_tracked")):
            value.fill_(1)
        else:
            value.copy_(noise.repeat(-(-value.numel() // len(noise)))[: value.numel()].view(value.shape))
            if value.ndim == 1:
                value.add_(0.5)
    torch.save(net.state_dict(), tmp_path / CATALOGUE["ir_se50"].file)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert identity.arcface_path() == tmp_path / CATALOGUE["ir_se50"].file
    judge, reason = arcface_or_none()
    assert judge is not None and reason is None
    embedding = judge.embed(frames(1, 112))
    assert embedding.shape == (1, 512) and np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(embedding, net.eval()(to_tensor(frames(1, 112))).numpy(), atol=1e-5)
