"""The state of a stage: one file, whole or refused."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from corrdiff_core.archive.objects import open_objects
from corrdiff_core.errors import TrainingError
from corrdiff_core.train.state import Progress, Trained, differences, load_state, save_state

TASK = {"preset": {"learning_rate": 0.1, "name": "small"}, "training": {"data_digest": "abc"}}
NAME = "regression.state"


def trained(steps, width=3):
    """A network after `steps` steps, its average and optimizer; channels_last as the real ones."""
    torch.manual_seed(steps)
    network = nn.Sequential(nn.Conv2d(2, width, 3), nn.Conv2d(width, 1, 1)).to(memory_format=torch.channels_last)
    average, optimizer = copy.deepcopy(network), torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(1, 2, 8, 8)).square().mean().backward()
        optimizer.step()
    return Trained(network, average, optimizer)


@pytest.fixture
def folder(tmp_path):
    return open_objects(str(tmp_path))


@pytest.fixture
def saved(folder):
    whole = trained(3)
    save_state(folder, NAME, TASK, Progress(3, 0, 0.5, [(2, 1.5)]), whole)
    return whole


def test_all_comes_back(folder, saved):
    other = trained(0)
    progress = load_state(folder, NAME, TASK, other)
    assert progress == Progress(3, 0, 0.5, [(2, 1.5)])
    there, here = dict(saved.tensors()), dict(other.tensors())
    assert there.keys() == here.keys()
    assert len([name for name in here if name.startswith("optimizer.")]) == 3 * 4
    for name, value in there.items():
        assert torch.equal(value, here[name])
        assert value.stride() == here[name].stride()


def test_the_next_step_is_the_same_to_the_bit(folder, saved):
    other = trained(0)
    load_state(folder, NAME, TASK, other)
    for each in (saved, other):
        torch.manual_seed(9)
        each.optimizer.zero_grad()
        each.network(torch.randn(1, 2, 8, 8)).square().mean().backward()
        each.optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(saved.parameters, other.parameters, strict=True))


def test_nothing_there_is_no_state(folder):
    assert load_state(folder, NAME, TASK, trained(0)) is None


def test_before_the_first_step_that_was_not_skipped_there_are_no_moments(folder):
    save_state(folder, NAME, TASK, Progress(2, 2), trained(0))
    other = trained(1)
    assert load_state(folder, NAME, TASK, other) == Progress(2, 2)
    assert not other.optimizer.state_dict()["state"]


class TestRefusals:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.data())
    def test_any_changed_byte(self, folder, saved, data):
        content = bytearray(folder.get(NAME))
        place = data.draw(st.integers(0, 95) | st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
        folder.put("changed", bytes(content))
        other = trained(0)
        before = [value.clone() for _, value in other.tensors()]
        with pytest.raises(TrainingError, match=r"changed: .*remove it to\s+train the stage anew"):
            load_state(folder, "changed", TASK, other)
        assert all(torch.equal(a, b) for a, (_, b) in zip(before, other.tensors(), strict=True))

    @pytest.mark.parametrize("keep", [0, 5, 60, 91, 92, 500, -1])
    def test_what_was_cut_short(self, folder, saved, keep):
        folder.put("cut", folder.get(NAME)[:keep])
        with pytest.raises(TrainingError, match=r"cut: "):
            load_state(folder, "cut", TASK, trained(0))

    def test_a_state_of_torch(self, folder, tmp_path):
        torch.save({"step": 3}, tmp_path / "regression.pt")
        with pytest.raises(TrainingError, match=r"regression\.pt: no training state of this package: remove it"):
            load_state(folder, "regression.pt", TASK, trained(0))

    def test_another_task_is_told_with_both_sides(self, folder, saved):
        other = {"preset": {"learning_rate": 0.2, "name": "small"}, "training": {}}
        with pytest.raises(
            TrainingError,
            match=r"of another task: preset\.learning_rate is 0\.1 there and 0\.2 here; training\.data_digest is abc "
            r"there and None here: train into another folder",
        ):
            load_state(folder, NAME, other, trained(0))

    def test_networks_of_another_shape(self, folder, saved):
        with pytest.raises(
            TrainingError, match=r"tensors do not fit the networks, first average\.0\.bias: \(3,\) there"
        ):
            load_state(folder, NAME, TASK, trained(0, width=4))

    def test_weights_without_their_optimizer(self, folder):
        """As a file that was put together from two would be."""
        save_state(folder, NAME, TASK, Progress(3), trained(0))
        with pytest.raises(TrainingError, match=r"first optimizer\.0\.exp_avg: None there and"):
            load_state(folder, NAME, TASK, trained(0))


def test_differences_name_what_is_missing_on_either_side():
    assert list(differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}, "d": [3]})) == [
        "a.c is 2 there and None here",
        "d is None there and [3] here",
    ]
