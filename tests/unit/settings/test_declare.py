"""The declaration of a setting, and the values that follow from it."""

from __future__ import annotations

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.declare import branch, build, divide, setting, settings_of
from ncps.settings.kinds.values import TEXT, duration, integer
from ncps.settings.schema.server import ServerSettings
from tests.unit.settings.around import load_with


@frozen(kw_only=True)
class Inner:
    """A branch."""

    wait_time_s: float = setting(duration(), "2s", "A time.")
    most: int = setting(integer(), "7", "A number.", shared=True)
    names: tuple[str, ...] = setting(TEXT, ("a", "b"), "Names.", flag="name", group="Others")


@frozen(kw_only=True)
class Outer:
    """A tree."""

    key: str = setting(TEXT, "", "A secret.", is_secret=True)
    in_side: Inner = branch(Inner, "Inside")


class DeclareTests(SynchronousTestCase):
    def test_names_follow_from_the_path(self) -> None:
        """The path gives flag, variable, key and attribute, unless one is given."""
        found = [
            (row.flag, row.environment, row.key, row.attribute, row.group)
            for row in settings_of(Outer, group="All")
        ]
        self.assertEqual(
            [
                ("key", "KEY", "key", "key", "All"),
                (
                    "in-side-wait-time",
                    "IN_SIDE_WAIT_TIME",
                    "in-side.wait-time",
                    "in_side.wait_time_s",
                    "Inside",
                ),
                ("in-side-most", "IN_SIDE_MOST", "in-side.most", "in_side.most", "Inside"),
                ("name", "NAME", "in-side.names", "in_side.names", "Others"),
            ],
            found,
        )

    def test_a_branch_has_the_documented_defaults(self) -> None:
        """Made without arguments, it equals one that is loaded without settings."""
        self.assertEqual(Inner(wait_time_s=2.0, most=7, names=("a", "b")), Inner())
        self.assertEqual(load_with().server, ServerSettings())

    def test_a_tree_is_built_from_its_values(self) -> None:
        """Values are given by dotted attribute; a missing one raises KeyError."""
        values = {"key": "k", "in_side.wait_time_s": 1.0, "in_side.most": 5, "in_side.names": ()}
        expected = Outer(key="k", in_side=Inner(wait_time_s=1.0, most=5, names=()))
        self.assertEqual(expected, build(Outer, values))
        del values["in_side.most"]
        self.assertRaises(KeyError, build, Outer, values)

    def test_shared_limits_are_divided(self) -> None:
        """Shared limits of inner branches, too, rounded up; other values are not."""
        self.assertEqual(Outer(in_side=Inner(most=3)), divide(Outer(), 3))

    def test_secrets_are_not_shown(self) -> None:
        """The `repr` of a branch, as in a log or a traceback, has no secrets."""
        self.assertNotIn("hunter2", repr(Outer(key="hunter2")))
