"""How often a property is drawn for: all of it in `make test`, a quarter in `make check`."""

from hypothesis import settings


def draws(count):
    """So many under the profile of hypothesis that draws a hundred by default, and a share of them under a smaller."""
    return max(1, count * settings.default.max_examples // 100)
