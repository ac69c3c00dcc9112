"""A real closure, made offline by evaluation only, and binary caches of it.

`builtins.toFile` and `builtins.path` write store paths with references between them without a
build. Such paths are content-addressed, and Nix accepts content-addressed paths without any
signature; so the exported narinfos lose their `CA` lines, which no signature covers, and from
then on only a trusted key lets a client install them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen

from tests.e2e.nixclient import NixClient

SMALL = 36  # paths of a few bytes, in chains and with many references
LARGE = (24 << 20, 6 << 20)  # bytes of incompressible data in each of the large paths
KEY_NAME = "upstream.test-1"
Contents = Callable[[int, int], bytes]


@frozen(kw_only=True)
class Closure:
    """Store paths in a client's store.

    :param root: the path that needs all others.
    """

    root: str
    paths: tuple[str, ...]
    client: NixClient
    secret_key_file: Path
    public_key: str

    def fingerprint(self, client: NixClient) -> dict[str, str]:
        """Return a hash of each path's whole tree in a client's store."""
        return {path: tree_hash(client.real_path(path)) for path in self.paths}


@frozen(kw_only=True)
class BinaryCache:
    """A directory that a file server serves as a binary cache.

    :param large: the target (as in a request) of the largest NAR.
    """

    directory: Path
    public_key: str
    large: str


def _write_sources(
    directory: Path, seed: int, small: int, large: Sequence[int], contents: Contents | None
) -> str:
    """Write the sources and an expression for them; return the expression's text."""
    noise = random.Random(seed)
    tree = directory / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "hello").write_text("#!/bin/sh\necho hello\n")
    (tree / "bin" / "hello").chmod(0o755)
    (tree / "bin" / "greet").symlink_to("hello")
    (tree / "dangling").symlink_to("/nowhere/at/all")
    (tree / "empty").touch()
    (tree / "hollow").mkdir()
    (tree / "grüße.txt").write_text("ä\n")
    lines = [f'tree = builtins.path {{ path = {tree}; name = "tree"; }};']
    names = ["tree"]
    for number, size in enumerate(large):
        file = directory / f"large{number}"
        file.write_bytes(noise.randbytes(size) if contents is None else contents(number, size))
        lines.append(f'large{number} = builtins.path {{ path = {file}; name = "large{number}"; }};')
        names.append(f"large{number}")
    for number in range(small):
        needs = noise.sample(names, min(len(names), 1 + number % 4)) + names[-1:]
        text = f"file {number}, seed {seed}: " + " ".join(f"${{{name}}}" for name in needs)
        lines.append(f'small{number} = builtins.toFile "small{number}.txt" "{text}\\n";')
        names.append(f"small{number}")
    everything = " ".join(f"${{{name}}}" for name in names)
    lines.append(f'root = builtins.toFile "root.txt" "{everything}\\n";')
    return "let\n" + "\n".join(lines) + "\nin root\n"


def make_closure(
    client: NixClient,
    directory: Path,
    *,
    seed: int = 1,
    small: int = SMALL,
    large: Sequence[int] = LARGE,
    contents: Contents | None = None,
) -> Closure:
    """Make the closure in the client's store; the same arguments give the same paths.

    :param small: how many paths of a few bytes.
    :param large: sizes of the others.
    :param contents: the bytes in them, by number and size; None for noise.
    """
    directory.mkdir(parents=True)
    expression = directory / "closure.nix"
    expression.write_text(_write_sources(directory, seed, small, large, contents))
    printed = client.run(
        "nix-instantiate",
        *("--store", str(client.store), "--eval", "--strict", "--read-write-mode"),
        str(expression),
    )
    root = printed.strip().splitlines()[-1].strip('"')
    secret, public = directory / "key.secret", directory / "key.public"
    client.run("nix-store", "--generate-binary-cache-key", KEY_NAME, str(secret), str(public))
    return Closure(
        root=root,
        paths=tuple(client.closure(root)),
        client=client,
        secret_key_file=secret,
        public_key=public.read_text().strip(),
    )


def export(closure: Closure, directory: Path, *, compression: str, level: int = 0) -> BinaryCache:
    """Write the closure as a signed binary cache.

    :param level: of xz.
    """
    options = f"compression={compression}&secret-key={closure.secret_key_file}"
    if compression == "xz":
        options += f"&parallel-compression=true&compression-level={level}"
    client = closure.client
    client.run(
        "nix",
        *("copy", "--from", str(client.store), "--to", f"file://{directory}?{options}"),
        closure.root,
    )
    sizes: dict[str, int] = {}
    for narinfo in directory.glob("*.narinfo"):
        lines = [line for line in narinfo.read_text().splitlines() if not line.startswith("CA:")]
        narinfo.write_text("\n".join(lines) + "\n")
        url = next(line.removeprefix("URL: ") for line in lines if line.startswith("URL: "))
        sizes[f"/{url}"] = (directory / url).stat().st_size
    return BinaryCache(
        directory=directory,
        public_key=closure.public_key,
        large=max(sizes, key=sizes.__getitem__),
    )


def tree_hash(root: Path) -> str:
    """Hash names, types, executable bits, link targets and contents of a tree."""
    digest = hashlib.sha256()
    for path in [root, *sorted(root.rglob("*"))]:
        digest.update(f"{path.relative_to(root)}\0".encode())
        if path.is_symlink():
            digest.update(f"link {path.readlink()}".encode())
        elif path.is_dir():
            digest.update(b"directory")
        else:
            digest.update(b"program" if path.stat().st_mode & 0o100 else b"file")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
