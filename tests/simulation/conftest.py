"""A folder in memory: what the simulation makes durable need not survive the machine."""

import shutil

import pytest

from tests.simulation.schedules import new_home


@pytest.fixture
def in_memory():
    """An empty folder."""
    home = new_home()
    yield home
    shutil.rmtree(home)
