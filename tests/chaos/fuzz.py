"""Feed mutated bytes to every parser: `python -m tests.chaos.fuzz --runs 100000 [TARGET ...]`.

With `atheris` installed (PyPI) coverage guides the mutations. Otherwise they are plain: flipped,
dropped, repeated and spliced pieces of good inputs. Each target runs in a process of its own with
a bounded number of inputs. A finding is an error that the parser does not document, an input that
takes longer than SLOW_S, or a value that differs after it was written and read again. The input of
a finding is printed and its file kept.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[2]
SLOW_S = 5
LONGEST = 20_000  # bytes of an input
TIMEOUT_S = 1800


def main() -> int:
    """Run the targets one after the other and print a table; 1 if there was a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.fuzz", description=__doc__)
    parser.add_argument("target", nargs="*", help="default: all")
    parser.add_argument("--runs", type=int, default=20_000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    is_guided = not options.plain and importlib.util.find_spec("atheris") is not None
    if options.child:
        child = guided if is_guided else plain
        return child(options.target[0], options.runs, options.seed)
    names = options.target or list(_targets())
    print(f"seed {options.seed}, {'guided by coverage' if is_guided else 'plain mutations'}")
    results = [_run(name, options.runs, options.seed, options.plain) for name in names]
    return 1 if any(results) else 0


def _run(name: str, runs: int, seed: int, is_plain: bool) -> bool:
    """Run one target in a child; return whether there was a finding."""
    command = [sys.executable, "-m", "tests.chaos.fuzz", "--child", name]
    command += ["--runs", str(runs), "--seed", str(seed), *(["--plain"] if is_plain else [])]
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S
    )
    counted = re.findall(r"(?:Done |#)(\d+)", done.stdout + done.stderr)
    number = max(map(int, counted), default=0)
    verdict = "nothing found" if done.returncode == 0 else "FOUND SOMETHING"
    print(f"{name:12} {number:>9} inputs {time.monotonic() - began:7.1f} s  {verdict}", flush=True)
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-6000:], sep="\n")
    return done.returncode != 0


def guided(name: str, runs: int, seed: int) -> int:
    """Let atheris choose the inputs; ends the process."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["ncps"]):
        _check, seeds = _targets()[name]()
    directory = Path(tempfile.mkdtemp(prefix=f"ncps-fuzz-{name}-"))
    for number, data in enumerate(seeds):
        (directory / f"seed-{number}").write_bytes(data)
    flags = [f"-runs={runs}", f"-seed={seed + 1}", f"-max_len={LONGEST}", f"-timeout={SLOW_S}"]
    flags += [f"-artifact_prefix={directory}/finding-", "-rss_limit_mb=1024"]
    atheris.Setup([name, *flags, str(directory)], _check)
    atheris.Fuzz()
    return 0


def plain(name: str, runs: int, seed: int) -> int:
    """Mutate good inputs at random."""
    check, seeds = _targets()[name]()
    chance = Random(f"{name}/{seed}")
    for number in range(runs):
        data = _mutate(chance, seeds)
        began = time.monotonic()
        try:
            check(data)
        except Exception:
            print(f"input {number}: {data!r}", flush=True)
            raise
        if time.monotonic() - began > SLOW_S:
            print(f"slow input {number}: {data!r}", flush=True)
            return 1
    print(f"Done {runs}")
    return 0


def _mutate(chance: Random, seeds: Sequence[bytes]) -> bytes:
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        at, until = sorted(chance.randint(0, len(data)) for _ in range(2))
        match chance.randrange(6):
            case 0:
                data[at:at] = chance.randbytes(chance.randint(1, 8))
            case 1:
                del data[at:until]
            case 2:
                data[at:at] = data[at:until] * chance.choice([1, 1, 2, 50])
            case 3:
                other = chance.choice(seeds)
                data[at:until] = other[chance.randint(0, len(other)) :]
            case 4 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case _ if data:
                data[at % len(data)] = chance.choice(b"\0\xff \n\r:/=-09az\x80")
        del data[LONGEST:]
    return bytes(data)


# The targets: each returns a function for an input, and good inputs. A target imports the tested
# modules itself, so that they can be instrumented.

Target = tuple[Callable[[bytes], object], Sequence[bytes]]


def narinfo() -> Target:
    """Narinfos, and the values that are made from them."""
    from ncps.cache.narinfo.record import parse_sidecar
    from ncps.errors import Malformed
    from ncps.nix.narinfo import NarInfo
    from ncps.nix.narurl import conventional_key, opaque_key
    from tests.system.caches import Dialect, SyntheticCache

    cache = SyntheticCache()
    for dialect in Dialect:
        cache.add(50, dialect=dialect, references=cache.paths[-2:], itself=True)

    def check(data: bytes) -> None:
        try:
            parsed = NarInfo.parse(data)
        except Malformed:
            return
        parsed.fingerprint()
        assert NarInfo.parse(parsed.render()) == parsed
        parse_sidecar(data)
        try:
            key = conventional_key(parsed.url)
        except Malformed:
            return
        key = key or opaque_key(parsed.compression, parsed.nar_hash)
        assert ".." not in key.file_name
        assert "/" not in key.file_name

    return check, [path.narinfo() for path in cache.paths]


def _trees() -> list[bytes]:
    """Return a few NARs: a file, an executable, a link, and directories of them."""
    from tests.system.caches import pack_nar

    def text(*tokens: bytes) -> bytes:
        return b"".join(
            len(token).to_bytes(8, "little") + token + bytes(-len(token) % 8) for token in tokens
        )

    link = text(b"nix-archive-1", b"(", b"type", b"symlink", b"target", b"../x", b")")
    inner = text(b"(", b"type", b"regular", b"contents", b"hello", b")")
    nodes = [
        b"".join([text(b"entry", b"(", b"name", n, b"node"), inner, text(b")")])
        for n in (b"a", b"b")
    ]
    tree = text(b"nix-archive-1", b"(", b"type", b"directory") + b"".join(nodes) + text(b")")
    return [pack_nar(b"hello"), pack_nar(b"x" * 300, executable=True), link, tree]


def nar() -> Target:
    """NAR archives."""
    from ncps.errors import Corrupt, Malformed
    from ncps.nix.nar import NarParser

    def check(data: bytes) -> None:
        step = 1 + len(data) % 7
        outcomes = []
        for pieces in ([data], [data[i : i + step] for i in range(0, len(data), step)]):
            parser = NarParser()
            try:
                for piece in pieces:
                    parser.feed(piece)
                outcomes.append(parser.finish().to_json())
            except (Corrupt, Malformed):
                outcomes.append({})
        assert outcomes[0] == outcomes[1], "the result depends on the pieces"

    return check, _trees()


def files() -> Target:
    """Compressed NARs; the first byte chooses the compression."""
    from ncps.errors import Corrupt, Malformed
    from ncps.nix.narcheck import NarDigest
    from tests.system.caches import compress

    kinds = ("none", "xz", "zstd", "bzip2", "br", "gzip", "lz4")

    def check(data: bytes) -> None:
        kind = kinds[data[0] % len(kinds)] if data else "none"
        digest = NarDigest(kind, max_size=1 << 20, listing=True)
        try:
            for start in range(1, len(data), 100):
                digest.feed(data[start : start + 100])
            digest.finish()
        except (Corrupt, Malformed):
            return

    tree = _trees()[-1]
    return check, [bytes([n]) + compress(tree, kind) for n, kind in enumerate(kinds)]


def cacheinfo() -> Target:
    """nix-cache-info."""
    from ncps.errors import Malformed
    from ncps.nix.cacheinfo import CacheInfo

    def check(data: bytes) -> None:
        try:
            parsed = CacheInfo.parse(data)
        except Malformed:
            return
        assert CacheInfo.parse(parsed.render()) == parsed

    return check, [b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n", b"Priority:1\r\n"]


def config() -> Target:
    """Configuration files, from bytes to settings; the first byte chooses the syntax."""
    from ncps.settings.load import load
    from ncps.settings.problems import InvalidSettings
    from tests.unit.settings.around import surroundings

    directory = Path(tempfile.mkdtemp(prefix="ncps-fuzz-config-"))
    suffixes = (".yaml", ".toml", ".json", ".conf")

    def check(data: bytes) -> None:
        path = directory / f"config{suffixes[data[0] % 4] if data else '.yaml'}"
        path.write_bytes(data[1:])
        try:
            load({"config": [str(path)]}, surroundings=surroundings())
        except InvalidSettings as error:
            assert error.problems
        finally:
            path.unlink()

    yaml = b"cache:\n  hostname: a.b\n  upstream:\n    urls: [http://x]\nlog: {level: info}\n"
    toml = (
        b'[cache]\nhostname = "a.b"\n[cache.upstream]\nurls = ["http://x"]\ndialer-timeout = "3s"\n'
    )
    json = b'{"cache": {"hostname": "a.b", "negative": {"ttl": "10s"}}, "log": {"level": "info"}}'
    return check, [b"\0" + yaml, b"\1" + toml, b"\2" + json, b"\3" + toml]


def texts() -> Target:
    """The small grammars: hashes, keys, signatures, store paths, NAR names, ranges, netrc."""
    from ncps import ranges
    from ncps.errors import Malformed, NcpsError
    from ncps.nix.hashes import Hash
    from ncps.nix.keys import PublicKey, SecretKey, Signature
    from ncps.nix.narurl import NarKey
    from ncps.nix.storepath import StorePath
    from ncps.upstream import netrc
    from tests.system.caches import SyntheticCache, TestKey

    def check(data: bytes) -> None:
        text = data.decode("latin-1")
        for parse in (
            lambda: Hash.parse(text, "sha256"),
            lambda: PublicKey.parse(text),
            lambda: SecretKey.parse(text),
            lambda: Signature.parse(text),
            lambda: StorePath.parse(text),
            lambda: StorePath.parse_base(text),
            lambda: NarKey.parse(text),
            lambda: netrc.parse(text),
        ):
            try:
                parsed = parse()
            except Malformed:
                continue
            if isinstance(parsed, NarKey):
                assert parsed.file_name == text
        spec = ranges.parse(data)
        if spec is not None:
            try:
                wanted = spec.resolve(1000)
            except NcpsError:
                return
            assert 0 <= wanted.start < wanted.stop <= 1000

    path = SyntheticCache().add(10)
    key = TestKey.of("k-1")
    return check, [
        b"sha256:" + b"0" * 52,
        key.public.encode(),
        key.sign("x").encode(),
        path.path.encode(),
        path.url.removeprefix("nar/").encode(),
        b"bytes=0-499",
        b"bytes=-5",
        b"machine a login b password c\ndefault login d\n",
    ]


def _targets() -> dict[str, Callable[[], Target]]:
    return {f.__name__: f for f in (narinfo, nar, files, cacheinfo, config, texts)}


if __name__ == "__main__":
    sys.stdout.flush()
    code = main()
    sys.stdout.flush()
    os._exit(code) if "--child" in sys.argv else sys.exit(code)
