import numpy as np
import pytest
import torch

import halvit_mm.io.logits
from halvit_mm.errors import RankError, UserError
from halvit_mm.io.logits import StoredLogits, write_manifest


def make(folder, topk: int, classes: int = 10, ranks: int = 1, rows: int = 12, batch_size: int = 4) -> StoredLogits:
    manifest = dict(topk=topk, classes=classes, epochs=1, ranks=ranks, batch_size=batch_size, rows=rows)
    write_manifest(folder, {**manifest, 'training': {}, 'teacher': {}})
    logits = StoredLogits(folder)
    logits.accepted = True
    return logits


@pytest.mark.parametrize(('topk', 'classes', 'size'), [(10, 10, 10 + 22 + 4), (3, 10, 3 + 8 + 4), (10, 1000, 46)])
def test_what_is_left_of_a_distribution(tmp_path, topk, classes, size):
    """The largest probabilities to half precision; the rest is shared evenly by the other classes."""
    stored = make(tmp_path, topk, classes)
    assert stored.row.itemsize == size
    assert stored.bytes == 12 * size
    given, images = 4 * torch.randn(12, classes), torch.randn(12, 3, 8, 8)
    stored.write(0, 0, 0, stored.pack(given, images))
    found = stored.teach(images, [(0, i) for i in range(12)])
    assert found.dtype == torch.float32
    probabilities, order = given.softmax(1).sort(1, descending=True)
    found_probabilities = found.softmax(1).gather(1, order)
    torch.testing.assert_close(found_probabilities[:, :topk], probabilities[:, :topk], rtol=6e-3, atol=1e-6)
    if topk < classes:
        rest = probabilities[:, topk:].mean(1, keepdim=True).expand(-1, classes - topk)
        torch.testing.assert_close(found_probabilities[:, topk:], rest, rtol=6e-3, atol=1e-6)


def test_each_place_on_ranks_and_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(halvit_mm.io.logits, 'SHARD', 8)
    stored = make(tmp_path, 2, ranks=2)
    assert (stored.part_rows, stored.parts, stored.places) == (8, 2, 24)
    given, images = torch.randn(24, 10), torch.randn(24, 3, 8, 8)
    packed = stored.pack(given, images)
    for rank in (0, 1):
        assert stored.missing(0, rank) == [0, 1]
        for part in (0, 1):
            stored.write(0, rank, part, packed[rank::2][8 * part : 8 * part + 8])
        assert stored.missing(0, rank) == []
    order = torch.randperm(24).tolist()
    assert np.array_equal(stored.read([(0, place) for place in order]), packed[order])
    with pytest.raises(RankError, match=r'has no logits of place 24 in epoch 1$'):
        stored.read([(0, 24)])
    with pytest.raises(RankError, match=r'epoch_2/0_0\.npy is not a shard of these logits \(FileNotFoundError'):
        stored.read([(1, 0)])
    [file] = tmp_path.glob('epoch_1/1_0.npy')
    file.write_bytes(file.read_bytes()[:100])
    assert stored.missing(0, 1) == [0]


def test_other_images(tmp_path):
    stored = make(tmp_path, 10)
    images, places = torch.randn(12, 3, 8, 8), [(0, i) for i in range(12)]
    stored.write(0, 0, 0, stored.pack(torch.randn(12, 10), images))
    flipped = images.clone()
    flipped[7] = flipped[7].flip(-1)
    with pytest.raises(RankError, match='holds logits of other images than those of epoch 1'):
        stored.teach(flipped, places)
    stored._calls, stored._apart = 0, None
    stored.teach(images + 0.01 * torch.randn(()).clamp(-1, 1), places)
    # Later batches are looked at together.
    for _ in range(99):
        stored.teach(flipped, places)
    with pytest.raises(RankError, match='other images'):
        stored.look()
    with pytest.raises(RankError, match='other images'):
        stored.teach(images, places)


@pytest.mark.parametrize(
    ('damage', 'fault'),
    [
        (lambda rows: rows.view(np.uint8).fill(0), 'probabilities that do not sum to 1'),
        (lambda rows: rows['logs'].fill(np.nan), 'probabilities that do not sum to 1'),
        (lambda rows: rows['classes'].fill(200), 'class 200 of 10'),
    ],
)
def test_damaged_rows(tmp_path, damage, fault):
    stored = make(tmp_path, 3)
    rows = stored.pack(torch.randn(12, 10), torch.randn(12, 3, 8, 8))
    damage(rows)
    stored.write(0, 0, 0, rows)
    with pytest.raises(
        RankError, match=rf'epoch_1/0_0\.npy is not a shard of these logits \({fault}\); expected tools/'
    ):
        stored.read([(0, 0)])


@pytest.mark.parametrize('content', [b'', b'{}' * 99, np.lib.format.MAGIC_PREFIX])
def test_damaged_shards(tmp_path, content):
    stored = make(tmp_path, 3)
    (tmp_path / 'epoch_1').mkdir()
    (tmp_path / 'epoch_1/0_0.npy').write_bytes(content)
    with pytest.raises(RankError, match=r'epoch_1/0_0\.npy is not a shard of these logits'):
        stored.read([(0, 0)])


@pytest.mark.parametrize(
    ('manifest', 'fault'),
    [({}, 'has topk=None'), ([], 'has a list'), ({'topk': 3, 'classes': 10, 'epochs': 0}, 'has epochs=0')],
)
def test_damaged_manifests(tmp_path, manifest, fault):
    write_manifest(tmp_path, manifest)
    with pytest.raises(UserError, match=rf'is not a folder of logits \(logits\.json {fault}\)'):
        StoredLogits(tmp_path)


def test_refusals(tmp_path):
    with pytest.raises(UserError, match=r'is not a folder of logits \(FileNotFoundError.*tools/save_logits\.py'):
        StoredLogits(tmp_path / 'none')
    stored = make(tmp_path, 10)
    with pytest.raises(RankError, match=r"these images have none; expected the loader of runner_type='halvit_mm"):
        stored.teach(torch.randn(1, 3, 8, 8), [None])
    stored.accepted = False
    with pytest.raises(UserError, match=r'was not compared with this training; expected the default_hooks of runner'):
        stored.teach(torch.randn(1, 3, 8, 8), [(0, 0)])
