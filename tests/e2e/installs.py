"""Every stock Nix client installs through ncps; test_install has the clients."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from tests.e2e.bench import Bench, shared_cache, shared_closure
from tests.e2e.daemon import Daemon, fetch
from tests.e2e.nixclient import NixError, end, finish
from tests.e2e.scissors import Scissors
from tests.integration.servers.certificates import Authority
from tests.system.caches import Dialect, SyntheticCache, pack_nar
from tests.system.faults import Cut, Only, Stall, Trickle
from tests.system.origin import Origin
from tests.waiting import free_port, wait_until

MIDDLE = 5_000_000  # bytes into the largest NAR
USED = 'ncps_prefetched_used_total{kind="nar"}'
UNKNOWN = "/nix/store/00000000000000000000000000000000-nowhere"


class Installs(Bench):
    """Tests for every client."""

    def arrives_cold_and_warm(self, compression: str) -> None:
        server = self.file_server(compression)
        daemon = self.daemon(server)
        self.install(daemon)
        self.assertEqual({}, server.repeated())
        self.check_store(daemon, compression)
        server.stop()
        self.install(daemon)
        daemon.stop()

    def test_xz_closure_arrives_cold_and_again_without_upstream(self) -> None:
        """A closure of xz NARs installs through ncps, and again without the upstream."""
        self.arrives_cold_and_warm("xz")

    def test_zstd_closure_arrives_cold_and_again_without_upstream(self) -> None:
        """A closure of zstd NARs installs through ncps, and again without the upstream."""
        self.arrives_cold_and_warm("zstd")

    def test_uncompressed_closure_arrives_cold_and_again_without_upstream(self) -> None:
        """A closure of uncompressed NARs installs through ncps, and again without the upstream."""
        self.arrives_cold_and_warm("none")

    def test_restart_without_upstream_serves_what_is_stored(self) -> None:
        """After a restart without upstreams, ncps starts and serves its stored paths."""
        server = self.file_server("zstd")
        daemon = self.daemon(server)
        self.install(daemon)
        key = daemon.public_key()
        daemon.stop()
        server.stop()
        daemon.start()
        self.assertEqual(key, daemon.public_key())
        self.install(daemon)

    def test_nix_copy_fetches_the_closure(self) -> None:
        """`nix copy --from`, which asks by HEAD first, fetches the closure, too."""
        server = self.file_server("zstd")
        daemon = self.daemon(server)
        client = self.client()
        client.copy(daemon.url, [daemon.public_key()], shared_closure().root)
        self.check(client, daemon)
        self.assertEqual({}, server.repeated())

    def test_nix_copy_finds_small_paths_fetched_ahead(self) -> None:
        """Four clients at the same time: each object is fetched once, most of them early."""
        server = self.file_server("zstd")
        daemon = self.daemon(server, options=["--prometheus-enabled"])
        wanted = daemon.url, [daemon.public_key()], shared_closure().root
        clients = [self.client() for _ in range(4)]
        with ThreadPoolExecutor(len(clients)) as threads:
            for done in [threads.submit(client.copy, *wanted) for client in clients]:
                done.result()
        for client in clients:
            self.check(client, daemon)
        self.assertEqual({}, server.repeated())
        metrics = fetch(f"{daemon.url}/metrics").body.decode()
        counted = [line for line in metrics.splitlines() if line.startswith(USED)]
        self.assertGreater(float(counted[0].rpartition(" ")[2]), 10, counted)

    def test_https_with_an_authority_of_ones_own(self) -> None:
        """A closure installs over TLS for a client that trusts the authority, and for no other."""
        authority, port = Authority(self.fresh_directory("tls"), "authority"), free_port()
        cert, key = authority.issue("server", days=90)
        daemon = self.daemon(
            self.file_server("zstd"),
            options=(
                *("--server-addr", f"https://127.0.0.1:{port}"),
                *("--server-tls-cert-file", str(cert), "--server-tls-key-file", str(key)),
            ),
        )
        client, stranger = self.client(), self.client()
        client.environment["NIX_SSL_CERT_FILE"] = str(authority.path)
        wanted = f"https://127.0.0.1:{port}", [daemon.public_key()], shared_closure().root
        with self.assertRaises(NixError):
            stranger.install(*wanted)
        client.install(*wanted)
        self.check(client, daemon)
        client.copy(*wanted)

    def test_client_without_the_key_of_ncps_refuses(self) -> None:
        """A client that trusts another key installs nothing, so the signature counts."""
        daemon = self.daemon(self.file_server("zstd"))
        client = self.client()
        name, _, _ = daemon.public_key().partition(":")
        with self.assertRaises(NixError):
            client.install(daemon.url, [f"{name}:{'A' * 43}="], shared_closure().root)

    def test_upstream_with_an_unknown_key_is_not_believed(self) -> None:
        """A path without a signature by a configured key is neither served nor signed."""
        other = f"other.test-1:{'A' * 43}="
        daemon = self.daemon(self.file_server("zstd"), public_key=other)
        with self.assertRaises(NixError):
            self.client().install(daemon.url, [daemon.public_key()], shared_closure().root)
        self.assertEqual([], daemon.stored_nars())

    def test_kill_in_a_download_leaves_nothing_partial(self) -> None:
        """After SIGKILL in the middle of a NAR and a restart, a client installs the closure."""
        server = self.file_server("xz")
        large = shared_cache("xz").large
        server.spoil_first(large, Stall(MIDDLE))
        daemon = self.daemon(server)
        process = self.install_in_background(self.client(), daemon)
        server.wait_for_stall(large)
        daemon.kill()
        end(process)
        self.assertNotIn(large.rpartition("/")[2], [path.name for path in daemon.stored_nars()])
        self.check_store(daemon, "xz")
        daemon.start()
        self.install(daemon)
        self.check_store(daemon, "xz")
        self.assertEqual(2, server.gets(large))
        # Other NARs that were arriving at the kill had to be fetched again, too, once.
        self.assertLessEqual(set(server.repeated().values()), {2})

    def test_client_outlives_a_kill_of_ncps(self) -> None:
        """A client whose ncps is killed and restarted in the middle of a NAR continues."""
        server = self.file_server("zstd")
        large = shared_cache("zstd").large
        server.spoil_first(large, Stall(MIDDLE))
        daemon = self.daemon(server)
        client = self.client()
        process = client.start_install(
            daemon.url,
            [daemon.public_key()],
            *(shared_closure().root, "--option", "download-attempts", "10"),
        )
        self.addCleanup(end, process)
        server.wait_for_stall(large)
        daemon.kill()
        daemon.start()
        finish(process)
        self.check(client, daemon)

    def test_download_goes_on_when_its_client_leaves(self) -> None:
        """A client that dies in the middle of a NAR does not stop the download."""
        server = self.file_server("none")
        large = shared_cache("none").large
        server.spoil_first(large, Stall(MIDDLE))
        daemon = self.daemon(server)
        process = self.install_in_background(self.client(), daemon)
        server.wait_for_stall(large)
        end(process)
        server.release()
        server.wait_for(lambda: server.visits(large)[0].outcome == "done")
        self.install(daemon)
        self.assertEqual({}, server.repeated())

    def test_four_clients_at_once_cause_one_fetch(self) -> None:
        """Four clients at the same time get everything; the upstream sees one GET per object."""
        server = self.file_server("zstd")
        daemon = self.daemon(server)
        clients = [self.client() for _ in range(4)]
        processes = [self.install_in_background(client, daemon) for client in clients]
        for process in processes:
            finish(process)
        for client in clients:
            self.check(client, daemon)
        self.assertEqual({}, server.repeated())

    def test_unknown_path_is_refused_quickly(self) -> None:
        """A path that no upstream has fails immediately, and ncps continues."""
        daemon = self.daemon(self.file_server("zstd"))
        began = time.monotonic()
        with self.assertRaises(NixError):
            self.client().install(daemon.url, [daemon.public_key()], UNKNOWN)
        self.assertLess(time.monotonic() - began, 20)
        self.assertEqual(404, fetch(f"{daemon.url}/{UNKNOWN[11:43]}.narinfo").status)
        self.install(daemon)

    def test_upstream_that_comes_up_late_is_used(self) -> None:
        """ncps starts with its upstream down, and uses it once it is there."""
        server = self.file_server("zstd")
        server.stop()
        daemon = self.daemon(server)
        with self.assertRaises(NixError):
            self.client().install(daemon.url, [daemon.public_key()], shared_closure().root)
        server.start()
        self.install_within(60, daemon)

    def install_within(self, seconds: float, daemon: Daemon) -> None:
        """Install with one new client after another until one succeeds."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.install(daemon)
                return
            except NixError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def test_upstream_that_cuts_is_resumed(self) -> None:
        """ncps asks an upstream that cuts a NAR twice for the rest, and the client only waits."""
        server = self.file_server("zstd")
        large = shared_cache("zstd").large
        server.spoil(large, Only(Cut(MIDDLE, reset=True), 1), Only(Cut(MIDDLE), 2))
        daemon = self.daemon(server)
        self.install(daemon)
        self.check_store(daemon, "zstd")
        ranges = [visit.request.range for visit in server.visits(large)]
        self.assertEqual(3, len(ranges), ranges)
        self.assertIsNone(ranges[0])
        for asked in ranges[1:]:
            self.assertRegex(str(asked), r"bytes=[1-9]\d*-")

    def test_client_that_is_cut_resumes(self) -> None:
        """A client whose connection to ncps breaks in the middle of a NAR gets the rest."""
        server = self.file_server("zstd")
        server.spoil(shared_cache("zstd").large, Trickle(40e6))
        daemon = self.daemon(server)
        for _when in ("cold", "warm"):
            wire = Scissors(daemon.port, after=MIDDLE)
            self.addCleanup(wire.stop)
            wire.start()
            client = self.client()
            client.install(wire.url, [daemon.public_key()], shared_closure().root)
            self.assertTrue(wire.is_cut)
            self.check(client, daemon)
        self.assertEqual({}, server.repeated())

    def test_dead_upstream_beside_a_live_one_does_no_harm(self) -> None:
        """If the first upstream is away, the closure comes from the second."""
        dead, live = self.file_server("zstd"), self.file_server("zstd")
        dead.stop()
        self.install(self.daemon(dead, live))
        self.assertEqual({}, live.repeated())

    def test_nix_copy_outlives_its_only_upstream(self) -> None:
        """The only upstream is killed in the middle of a copy and restarted: the copy succeeds."""
        server = self.file_server("zstd")
        large = shared_cache("zstd").large
        server.spoil_first(large, Stall(MIDDLE))
        daemon = self.daemon(server)
        client = self.client()
        process = client.start_copy(daemon.url, [daemon.public_key()], shared_closure().root)
        self.addCleanup(end, process)
        server.wait_for_stall(large)
        server.stop()
        wait_until(lambda: "is away" in daemon.log, "ncps to notice", daemon=daemon)
        self.assertIsNone(process.poll())
        server.start()
        finish(process)
        self.check(client, daemon)
        self.check_store(daemon, "zstd")
        again = server.visits(large)[-1]
        self.assertRegex(str(again.request.range), r"bytes=[1-9]\d*-")

    def test_every_dialect_of_upstreams_arrives(self) -> None:
        """Opaque and hexadecimal names, missing fields, encoded answers: all install, twice."""
        cache = SyntheticCache()
        for compression in ("none", "xz", "zstd", "bzip2", "br", "gzip", "lz4"):
            cache.add(compression=compression, references=cache.paths[-2:], itself=True)
        for dialect in Dialect:
            cache.add(dialect=dialect, compression="zstd", references=cache.paths[-1:])
        cache.add(dialect=Dialect.ENCODED, compression="none", references=cache.paths[-1:])
        paths = [path.path for path in cache.paths]
        origin = Origin()
        origin.start()
        self.addCleanup(origin.stop)
        cache.mount(origin)
        daemon = self.daemon(origin, public_key=cache.key.public)
        for upstream_runs in (True, False):
            if not upstream_runs:
                origin.stop()
            client = self.client()
            client.install(daemon.url, [daemon.public_key()], *paths)
            client.verify([daemon.public_key()], *paths)
            for made in cache.paths:
                content = client.real_path(made.path).read_bytes()
                self.assertEqual(made.nar, pack_nar(content), made)
