"""The stores, as the settings name them."""

from __future__ import annotations

from attrs import frozen

from ncps.ports import ConfigStore, NarInfoStore, NarStore
from ncps.settings.model import Settings
from ncps.storage.local import LocalConfigStore, LocalNarInfoStore, LocalNarStore
from ncps.storage.temps import Temps
from ncps.storage.tree import Tree
from ncps.workers import Workers


@frozen(kw_only=True)
class Stores:
    """The three storage ports, and where unfinished downloads lie."""

    tree: Tree
    spools: Temps
    nars: NarStore
    narinfos: NarInfoStore
    config: ConfigStore


def stores(settings: Settings, workers: Workers) -> Stores:
    """Make the stores; nothing is opened."""
    tree = Tree(settings.cache.storage.local)
    temp_path = settings.cache.temp_path
    return Stores(
        tree=tree,
        spools=tree.temps if temp_path is None else Temps(temp_path),
        nars=LocalNarStore(tree=tree, workers=workers),
        narinfos=LocalNarInfoStore(tree=tree, workers=workers),
        config=LocalConfigStore(tree=tree, workers=workers),
    )
