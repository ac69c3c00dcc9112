"""Ceph's S3 server for tests: `with RadosGW() as s3: bucket = s3.new_bucket()`."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit
from uuid import uuid4

from tests.integration.servers.account import SEARCH, InstalledServer
from tests.server import PATIENCE_S, end
from tests.services import require
from tests.waiting import free_port

_PROGRAMS = ("ceph-mon", "ceph-osd", "ceph", "monmaptool", "radosgw", "radosgw-admin")
_SYSTEM_PYTHON = "/usr/bin/python3"  # the only one that has Ceph's modules

# Encryption between the parts would start slowly; they only talk to each other here.
# Without the two paxos lines the start takes six seconds more.
_CONFIGURATION = """\
[global]
fsid = {cluster}
mon_host = v2:127.0.0.1:{monitor_port}
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_cluster_mode = crc
ms_mon_client_mode = crc
ms_cluster_mode = crc
ms_service_mode = crc
ms_client_mode = crc
ms_bind_msgr1 = false
ms_bind_ipv6 = false
public_network = 127.0.0.0/8
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 5000
osd_crush_chooseleaf_type = 0
osd_client_watch_timeout = 5
osd_objectstore = memstore
memstore_device_bytes = 4294967296
mon_data_avail_warn = 1
mon_data_avail_crit = 1
mon_cluster_log_file = none
run_dir = {directory}/run
log_file = {directory}/$name.log
admin_socket = {directory}/run/$name.$pid.asok
pid_file = {directory}/run/$name.pid
mon_data = {directory}/mon
osd_data = {directory}/osd
[client]
rgw_data = {directory}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw_thread_pool_size = 64
rgw_enable_usage_log = false
rgw_dynamic_resharding = false
rgw_crypt_require_ssl = false
rgw_crypt_s3_kms_backend = testing
rgw_crypt_s3_kms_encryption_keys = {kms_key}=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=
"""

KMS_KEY = "testkey-1"
"""Name of the only key that the server has for encrypted objects."""


class RadosGW(InstalledServer):
    """One server that keeps everything in memory; skips the test if it is not installed.

    Its process is the gateway, which stops and starts; the parts behind it last until `close`.

    :ivar endpoint: for path-style requests; the same over `stop` and `start` of the gateway.
    :ivar access_key: of a user that may do everything with its buckets, with `secret_key`.
    """

    name = "radosgw"
    user = "ceph"
    region = "default"

    def __init__(self) -> None:
        found = {name: shutil.which(name, path=SEARCH) for name in _PROGRAMS}
        require(all(found.values()), "Ceph (packages ceph-mon, ceph-osd, ceph-common, radosgw)")
        self._programs = {name: str(path) for name, path in found.items()}
        super().__init__("ncps-s3-")
        self._cluster: list[subprocess.Popen[bytes]] = []
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.access_key = "TESTKEY"
        self.secret_key = "test/secret+with=signs"
        self._configuration = self.directory / "ceph.conf"
        for name in ("mon", "osd", "run", "rgw"):
            self.folder(name)

    @property
    def log_file(self) -> Path:
        """The file with the output of the gateway."""
        return self.directory / "radosgw.out"

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._programs[program], "-c", str(self._configuration), *arguments]
        if program == "ceph":
            command.insert(0, _SYSTEM_PYTHON)
        self._account.run(*command, cwd=self.directory)

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        return self._account.start(
            *(self._programs[program], "-c", str(self._configuration), "-f", *arguments),
            cwd=self.directory,
            log=self.directory / f"{program}.out",
        )

    def _start_cluster(self) -> None:
        cluster, disk, monitor_port = str(uuid4()), str(uuid4()), free_port()
        self._configuration.write_text(
            _CONFIGURATION.format(
                cluster=cluster,
                directory=self.directory,
                monitor_port=monitor_port,
                port=self.port,
                kms_key=KMS_KEY,
            )
        )
        monitors = str(self.directory / "monmap")
        self._account.run(
            *(self._programs["monmaptool"], "--create", "--fsid", cluster),
            *("--addv", "a", f"[v2:127.0.0.1:{monitor_port}]", monitors),
            cwd=self.directory,
        )
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors)
        self._cluster.append(self._spawn("ceph-mon", "-i", "a"))
        self._run(
            *("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk),
            *("--no-mon-config", "--monmap", monitors),
        )
        self._run("ceph", "--connect-timeout", "30", "osd", "new", disk)
        self._run("ceph", "osd", "crush", "add", "osd.0", "1", "root=default", "host=h")
        self._cluster.append(self._spawn("ceph-osd", "-i", "0"))

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the gateway, and do not wait for it."""
        return self._spawn("radosgw", "-n", "client.admin")

    def start(self, deadline: float = PATIENCE_S) -> None:
        """Start it and wait until it answers; objects from before a `stop` are still there."""
        is_new = not self._cluster
        try:
            if is_new:
                self._start_cluster()
            super().start(deadline)
            if is_new:
                self.new_user(self.access_key, self.secret_key)
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Stop the gateway as an administrator does; the objects stay."""
        self.end(signal.SIGTERM)

    def crash(self) -> None:
        """Kill the gateway during its work; the objects stay.

        For five seconds after that, changes of users and buckets wait for the dead gateway.
        """
        self.kill()

    def close(self) -> None:
        """End everything and remove its files with all objects."""
        # Nothing of it is kept, so nothing has to end in order.
        while self._cluster:
            end(self._cluster.pop(), signal.SIGKILL)
        super().close()

    def new_user(self, access_key: str, secret_key: str) -> None:
        """Add a user without buckets."""
        self._run(
            *("radosgw-admin", "user", "create", "--uid", access_key.lower()),
            *("--display-name", access_key, "--access-key", access_key),
            *("--secret-key", secret_key),
        )

    def new_bucket(self) -> str:
        """Make an empty bucket of the first user and return its name."""
        name = f"ncps-{uuid4().hex[:12]}"
        status, body = self.request("PUT", f"/{name}")
        if status != 200:
            raise AssertionError(f"no bucket: {status} {body!r}")
        return name

    def sizes(self, bucket: str, prefix: str) -> dict[str, int]:
        """Return the sizes of all objects below a prefix, by key."""
        found: dict[str, int] = {}
        while True:
            start = f"&start-after={quote(max(found), safe='')}" if found else ""
            query = f"list-type=2&prefix={quote(prefix, safe='')}{start}"
            status, body = self.request("GET", f"/{bucket}", query=query)
            if status != 200:
                raise OSError(f"no list of {bucket}: {status} {body!r}")
            page = re.findall(r"<Key>([^<]+)</Key>.*?<Size>(\d+)</Size>", body.decode(), re.DOTALL)
            found |= {key: int(size) for key, size in page}
            if not page or "<IsTruncated>true</IsTruncated>" not in body.decode():
                return found

    def request(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        body: bytes = b"",
        metadata: Mapping[str, str] | None = None,
        secret_key: str | None = None,
    ) -> tuple[int, bytes]:
        """Send one signed request, without any client library; return status and body.

        :param query: already in the form and order in which it is signed.
        :param metadata: of the object, each under `x-amz-meta-` and its name in lower case.
        """
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        host = urlsplit(self.endpoint).netloc
        digest = hashlib.sha256(body).hexdigest()
        headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": now}
        headers |= {f"x-amz-meta-{name}": value for name, value in (metadata or {}).items()}
        lines = [f"{name}:{headers[name]}" for name in sorted(headers)]
        signed = ";".join(sorted(headers))
        path = quote(path)
        canonical = "\n".join([method, path, query, *lines, "", signed, digest])
        scope = f"{now[:8]}/{self.region}/s3/aws4_request"
        subject = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{subject}"
        key = f"AWS4{secret_key or self.secret_key}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        connection = http.client.HTTPConnection(host, timeout=60)
        try:
            connection.request(
                method,
                path + (f"?{query}" if query else ""),
                body,
                {
                    **headers,
                    "Authorization": f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, "
                    f"SignedHeaders={signed}, Signature={key.hex()}",
                },
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
