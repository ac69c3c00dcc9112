"""Settings of a bucket on a real server: credentials, and encryption of objects."""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path
from types import MappingProxyType

from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Unavailable
from ncps.storage import keys
from ncps.storage.s3 import copy
from ncps.storage.s3.bucket import Bucket, BucketAccess, connect
from ncps.storage.s3.probe import probe_blocking
from tests.contract.body import content
from tests.contract.nar_store import NarStoreContract
from tests.contract.samples import key_of, spooled
from tests.integration.servers import shared
from tests.integration.servers.certificates import Authority
from tests.integration.servers.radosgw import KMS_KEY
from tests.integration.test_s3_store import PART, S3TestCase, access_to
from tests.system.origin import Origin


class SettingsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = shared.radosgw()
        self.name = self.server.new_bucket()

    def bucket(self, access: BucketAccess) -> Bucket:
        made = Bucket(connect(access), access)
        self.addCleanup(made.close)
        return made


class CredentialTests(SettingsCase):
    """Without keys in the settings, ncps finds credentials as AWS's tools do."""

    def setUp(self) -> None:
        super().setUp()
        self.access = access_to(self.server, self.name, access_key_id="", secret_access_key="")
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir(parents=True)

    def surround(self, **variables: str) -> None:
        """Set these variables of AWS and no others."""
        kept = {name: value for name, value in os.environ.items() if name[:4] != "AWS_"}
        nowhere = {"HOME": str(self.home), "AWS_EC2_METADATA_DISABLED": "true"}
        self.patch(os, "environ", {**kept, **nowhere, **variables})

    def test_environment(self) -> None:
        """Variables, as in containers and services."""
        self.surround(
            AWS_ACCESS_KEY_ID=self.server.access_key,
            AWS_SECRET_ACCESS_KEY=self.server.secret_key,
        )
        probe_blocking(self.bucket(self.access), {})

    def test_profile(self) -> None:
        """A profile in files."""
        file = self.home / "credentials"
        file.write_text(
            "[cache]\n"
            f"aws_access_key_id = {self.server.access_key}\n"
            f"aws_secret_access_key = {self.server.secret_key}\n"
        )
        self.surround(AWS_SHARED_CREDENTIALS_FILE=str(file), AWS_PROFILE="cache")
        probe_blocking(self.bucket(self.access), {})

    def test_program(self) -> None:
        """A program that gives credentials for a time, as with a vault."""
        program = self.home / "credentials.sh"
        told = {
            "Version": 1,
            "AccessKeyId": self.server.access_key,
            "SecretAccessKey": self.server.secret_key,
        }
        program.write_text(f"#!/bin/sh\necho '{json.dumps(told)}'\n")
        program.chmod(0o700)
        file = self.home / "config"
        file.write_text(f"[default]\ncredential_process = {program}\n")
        self.surround(AWS_CONFIG_FILE=str(file))
        probe_blocking(self.bucket(self.access), {})

    def test_none(self) -> None:
        """The message names the settings that could be given."""
        self.surround()
        with self.assertRaises(Unavailable) as caught:
            probe_blocking(self.bucket(self.access), {})
        for word in ("no credentials", "access-key-id", "environment", "profile"):
            self.assertIn(word, str(caught.exception))


class CertificateTests(SynchronousTestCase):
    """The server's certificate must be one for its host."""

    def test_certificate_that_is_for_another_host_or_for_none(self) -> None:
        """No request is sent, and the error names the server."""
        directory = Path(self.mktemp()).absolute()
        authority = Authority(directory, "authority")
        self.patch(os, "environ", {**os.environ, "AWS_CA_BUNDLE": str(authority.path)})
        for names in ([], ["elsewhere.example"], ["*.1"], ["127.0.0.1"]):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*authority.issue("elsewhere.example", names=names))
            with Origin(tls=context) as origin:
                way = BucketAccess(
                    bucket="bucket",
                    endpoint=origin.url,
                    access_key_id="key",
                    secret_access_key="a secret",
                    force_path_style=True,
                    connect_timeout_s=5.0,
                    read_timeout_s=5.0,
                    attempts=1,
                    connections=1,
                )
                bucket = Bucket(connect(way), way)
                with self.assertRaises(Unavailable) as caught:
                    probe_blocking(bucket, {})
                bucket.close()
            self.assertEqual([], origin.log)
            told = f"no trusted TLS connection to {origin.url}" in str(caught.exception)
            # The origin is no bucket: with the right certificate the error comes later.
            self.assertEqual(names != ["127.0.0.1"], told, caught.exception)


class EncryptedTests(NarStoreContract, S3TestCase):
    """The server encrypts objects; NARs have a storage class of their own."""

    changes = MappingProxyType({"encryption": "aws:kms", "kms_key_id": KMS_KEY})

    def setUp(self) -> None:
        super().setUp()
        self.store = self.nar_store(options={"StorageClass": "STANDARD"})

    async def test_the_server_reports_how_they_are_stored(self) -> None:
        """Small objects and those in parts are stored so, and read unchanged."""
        for number, size in ((1, 1000), (2, PART + 1000)):
            data = os.urandom(size)
            await self.store.publish(key_of(number), spooled(self.sources, data))
            self.assertEqual(await content(await self.store.open(key_of(number))), data)
            part = await content(await self.store.open(key_of(number), size - 500, size - 200))
            self.assertEqual(part, data[-500:-200])
            facts = connect(self.access).head_object(
                Bucket=self.access.bucket,
                Key=f"{self.access.prefix}/{keys.nar_key(key_of(number))}",
            )
            self.assertEqual(
                (facts["ServerSideEncryption"], facts["SSEKMSKeyId"]), ("aws:kms", KMS_KEY)
            )

    async def test_large_objects_are_set_aside_encrypted(self) -> None:
        """This server cannot copy encrypted objects, so ncps copies the bytes itself."""
        data = os.urandom(PART + 1000)
        await self.store.publish(key_of(1), spooled(self.sources, data))
        self.patch(copy, "PIECE", PART)
        self.assertTrue(await self.store.quarantine(key_of(1)))
        self.assertIsNone(await self.store.stat(key_of(1)))
        (aside,) = self.bucket.page("store/quarantine/")[0]
        self.assertEqual(self.bucket.read(aside.key), data)
        self.assertEqual(self.bucket.uploads("store/"), [])
