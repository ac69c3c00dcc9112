from __future__ import annotations

from pathlib import Path

from tests.unit.test_cli import CommandCase


class FormerCommandTests(CommandCase):
    """The commands of the Go program, with all their flags."""

    def test_nothing_to_be_done(self) -> None:
        """Scripts that call them succeed; one line says what replaces them."""
        store = Path(self.mktemp())
        for words, saying in (
            (["fsck", "--repair", "--verify-content", "--verified-since", "24h"], "verify-rate"),
            (["migrate-narinfo", "--dry-run", "--concurrency", "10"], "ncps rebuild"),
            (["migrate-nar-to-chunks", "--concurrency=10", "--dry-run"], "each NAR whole"),
            (["migrate-chunks-to-nar", "--force-reclaim"], "no chunks in"),
        ):
            code, out, err = self.run_command(*words, f"--cache-storage-local={store.absolute()}")
            self.assertEqual((0, "", 1), (code, err, out.count("\n")))
            self.assertIn(f"ncps: {words[0]}: nothing to do: ", out)
            self.assertIn(saying, out)
        self.assertEqual([], self.ran)

    def test_chunks(self) -> None:
        """A directory with chunks needs the Go program."""
        chunk = Path(self.mktemp()).absolute() / "store" / "chunk" / "0" / "00" / "0000"
        chunk.parent.mkdir(parents=True)
        words = ["migrate-chunks-to-nar", f"--cache-storage-local={chunk.parents[4]}"]
        self.assertEqual(0, self.run_command(*words)[0])
        chunk.touch()
        code, out, err = self.run_command(*words)
        self.assertEqual((2, "", 1), (code, out, err.count("\n")))
        self.assertIn(f"{chunk.parents[4]} has chunks", err)

    def test_mistakes(self) -> None:
        """A flag that neither program has is an error, not a success."""
        code, _, err = self.run_command("fsck", "--repare")
        self.assertEqual(2, code)
        self.assertIn("unknown flag --repare", err)
