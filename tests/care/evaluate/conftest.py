import pytest

import shards
from care.train import Run


@pytest.fixture
def reads(monkeypatch):
    """(set, row) of every image that was read."""
    seen, image = [], shards.ShardSet.image

    def record(self, row):
        seen.append((self.path.name, int(row)))
        return image(self, row)

    monkeypatch.setattr(shards.ShardSet, "image", record)
    return seen


@pytest.fixture
def at_step(monkeypatch):
    """Does something in the middle of a run: when the losses of a step are there, before the optimizer."""
    update = Run.update

    def register(steps, action):
        def action_and_update(self, now, *args):
            if now in steps:
                action()
            return update(self, now, *args)

        monkeypatch.setattr(Run, "update", action_and_update)

    return register
