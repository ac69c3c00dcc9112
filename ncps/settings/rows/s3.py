"""Settings of a store in a bucket of S3."""

from __future__ import annotations

from ncps.settings.s3 import BUCKET, ENDPOINT, PREFIX, REGION, STORAGE_CLASS
from ncps.settings.setting import Kind, Setting
from ncps.settings.values import BOOLEAN, SIZE, TEXT, choice, duration, integer, size

_OF_CHAIN = (
    "Without it, credentials are looked for where AWS's own tools do: environment, profile, role."
)


def _row(name: str, kind: Kind, default: str, help_: str, *, is_secret: bool = False) -> Setting:
    return Setting(
        flag=f"cache-storage-s3-{name}",
        key=f"cache.storage.s3.{name}",
        kind=kind,
        default=default,
        is_secret=is_secret,
        group="Storage in S3",
        help=help_,
    )


ROWS = (
    _row(
        "bucket",
        BUCKET,
        "",
        "Bucket that keeps NARs, narinfos and the signing key, instead of a directory. It must "
        "exist. Several instances may share it.",
    ),
    _row(
        "endpoint",
        ENDPOINT,
        "",
        "URL of the S3 server, with http:// or https://. Without it, AWS's own for the region.",
    ),
    _row(
        "region",
        REGION,
        "",
        "Region of the bucket. Without it, what AWS's own tools are set to, or else us-east-1, "
        "which servers that are not AWS accept.",
    ),
    _row(
        "prefix",
        PREFIX,
        "",
        "Beginning of the keys of all objects, such as caches/nix, where the bucket holds other "
        "things, too.",
    ),
    _row(
        "force-path-style",
        BOOLEAN,
        "false",
        "Put the bucket into the path of URLs instead of the host name. Most servers that are not "
        "AWS want this.",
    ),
    _row("access-key-id", TEXT, "", f"Name of the credentials. {_OF_CHAIN}", is_secret=True),
    _row("secret-access-key", TEXT, "", "Secret of the credentials.", is_secret=True),
    _row(
        "session-token",
        TEXT,
        "",
        "Session token that belongs to temporary credentials. It is not renewed when it expires.",
        is_secret=True,
    ),
    _row(
        "storage-class",
        STORAGE_CLASS,
        "",
        "Storage class of NARs, such as STANDARD_IA; it must be one that is read at once. Without "
        "it, the server's default.",
    ),
    _row(
        "server-side-encryption",
        choice(("", "AES256", "aws:kms", "aws:kms:dsse")),
        "",
        "How the server shall encrypt objects at rest: AES256, aws:kms or aws:kms:dsse. Without "
        "it, the default of the bucket.",
    ),
    _row(
        "kms-key-id",
        TEXT,
        "",
        "Key of KMS to encrypt with, where --cache-storage-s3-server-side-encryption is aws:kms. "
        "Without it, the default of the bucket.",
    ),
    _row(
        "connect-timeout",
        duration(at_least_s=0.1),
        "5s",
        "Time for a connection to the S3 server to be made.",
    ),
    _row(
        "read-timeout",
        duration(at_least_s=0.1),
        "10s",
        "Time for which the S3 server may send nothing while an answer is waited for.",
    ),
    _row(
        "max-attempts",
        integer(at_least=1, at_most=20),
        "3",
        "Attempts at each request to the S3 server, the first one included. Between them are "
        "pauses that grow, of some seconds in all.",
    ),
    _row(
        "threads",
        integer(at_least=4, at_most=1000),
        "32",
        "Threads of each worker that talk to the S3 server. A quarter of them may send uploads.",
    ),
    _row(
        "queue-timeout",
        duration(at_least_s=0.001),
        "10s",
        "Time for which a request to the S3 server may wait for a thread, before its client is "
        "told to come back (503 with Retry-After).",
    ),
    _row(
        "part-size",
        size(at_least=5 << 20, at_most=1 << 30),
        "16M",
        "Size of the parts in which NARs are uploaded; smaller ones go in one request. Parts grow "
        "as needed for NARs of up to 5T.",
    ),
    _row(
        "redirect",
        BOOLEAN,
        "false",
        "Answer a request for a large stored NAR by a redirect to the S3 server, with an address "
        "that is valid for some minutes. Clients must be able to reach the endpoint. The bytes "
        "then bypass this cache and its access line, limits and rates.",
    ),
    _row(
        "redirect-min-size",
        SIZE,
        "8M",
        "Size of a NAR from which --cache-storage-s3-redirect holds; smaller ones are sooner sent.",
    ),
    _row(
        "redirect-ttl",
        duration(at_least_s=10.0),
        "15m",
        "Time for which the address of a redirect is valid; a transfer that has begun may take "
        "longer.",
    ),
)
