"""Settings: one table, three sources, one frozen tree.

`table` says what there is, `load` reads it, `model` is what the rest of the program sees.
"""

from ncps.settings.load import load
from ncps.settings.model import Settings, UpstreamSetting
from ncps.settings.problems import InvalidSettings
from ncps.settings.surroundings import Surroundings

__all__ = ["InvalidSettings", "Settings", "Surroundings", "UpstreamSetting", "load"]
