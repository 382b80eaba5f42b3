import torch

from src.datamodules.foam_volumes import random_cube_symmetry


def test_all_48_symmetries_are_reached_about_equally_often():
    torch.manual_seed(0)
    volume = torch.arange(27.0).view(1, 3, 3, 3)
    counts: dict[bytes, int] = {}
    for _ in range(4800):
        key = random_cube_symmetry(volume).contiguous().numpy().tobytes()
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 48
    assert min(counts.values()) > 50 and max(counts.values()) < 150  # five standard deviations around 100


def test_both_volumes_are_turned_alike():
    torch.manual_seed(1)
    volume = torch.randn(1, 4, 4, 4)
    for _ in range(20):
        first, second = random_cube_symmetry(torch.cat([volume, 2 * volume]))
        torch.testing.assert_close(second, 2 * first, rtol=0, atol=0)


def test_same_torch_seed_same_symmetry():
    volume = torch.randn(1, 4, 4, 4)
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(torch.stack([random_cube_symmetry(volume) for _ in range(5)]))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
