"""Settings of the server: its listening sockets and the limits of clients."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from ncps.settings.declare import branch, setting
from ncps.settings.kinds.network import ADDRESS
from ncps.settings.kinds.network import PROXY as TRUSTED_PROXY
from ncps.settings.kinds.values import OPTIONAL_PATH, SIZE, duration, integer, size


@frozen(kw_only=True)
class ServerTlsSettings:
    """The certificate of the https:// addresses, and the clients that they accept."""

    cert_file: Path | None = setting(
        OPTIONAL_PATH,
        "",
        "Certificate for the https:// addresses of --server-addr, PEM, followed by the "
        "certificates of the authorities between it and the root. ncps checks the file every 5 "
        "seconds and uses a new certificate for new connections.",
        note="none",
    )
    key_file: Path | None = setting(
        OPTIONAL_PATH,
        "",
        "Private key of that certificate, PEM, without a password.",
        note="none",
    )
    client_ca_file: Path | None = setting(
        OPTIONAL_PATH,
        "",
        "Authorities, PEM. With it, the https:// addresses serve only clients that show a "
        "certificate which one of them has signed.",
        note="none: every client is served",
        reloads=True,
    )
    handshake_timeout_s: float = setting(
        duration(at_least_s=0.1),
        "10s",
        "Time that a client has for the handshake of TLS.",
        counted=True,
    )


@frozen(kw_only=True)
class ServerSettings:
    """The listening sockets, and what clients may take of the server."""

    addr: tuple[str, ...] = setting(
        ADDRESS,
        ("tcp:8501:interface=127.0.0.1",),
        "Address to listen on, one or several. HOST:PORT; :PORT for all interfaces, IPv6 and "
        "IPv4; [IPV6]:PORT; or an endpoint of Twisted: tcp:8501:interface=192.0.2.1, "
        "unix:/run/ncps.sock:mode=660, systemd:domain=INET6:name=http. With TLS: "
        "https://HOST:PORT, https://:PORT, or https+systemd:domain=INET6:name=https; these need "
        "--server-tls-cert-file.",
    )
    tls: ServerTlsSettings = branch(ServerTlsSettings)
    idle_timeout_s: float = setting(
        duration(at_least_s=1),
        "120s",
        "Close a client's connection that is idle for this time between requests. Nix reuses idle "
        "connections for up to 90 seconds; with a shorter time here, it has to repeat requests.",
        reloads=True,
    )
    header_timeout_s: float = setting(
        duration(at_least_s=0.1),
        "10s",
        "Time that a client has to send the head of a request.",
        counted=True,
        reloads=True,
    )
    write_stall_timeout_s: float = setting(
        duration(at_least_s=1),
        "5m",
        "Cut off a client that takes no byte of its answer for this time. --server-min-send-rate "
        "sets the least rate for slow clients.",
        counted=True,
        reloads=True,
    )
    drain_timeout_s: float = setting(
        duration(),
        "30s",
        "Time that running answers have to finish after SIGTERM, before ncps cuts them off. A "
        "second SIGTERM or SIGINT cuts them off immediately.",
        reloads=True,
    )
    drain_delay_s: float = setting(
        duration(),
        "0s",
        "Time after SIGTERM in which ncps serves everything as before, but /readyz answers 503, "
        "so that a load balancer can turn to other instances. --server-drain-timeout begins after "
        "it.",
        reloads=True,
    )
    min_send_rate_bytes: int = setting(
        SIZE,
        "1K",
        "Bytes a second that a client must take of its answer, on average over "
        "--server-min-send-window; a slower one is cut off and may resume. 0 for no such limit.",
        counted=True,
        reloads=True,
    )
    min_send_window_s: float = setting(
        duration(at_least_s=1),
        "5m",
        "Time over which --server-min-send-rate is averaged, without the time in which ncps waits "
        "for an upstream and not for the client.",
        reloads=True,
    )
    receive_stall_timeout_s: float = setting(
        duration(at_least_s=0.1),
        "1m",
        "Cut off a client that sends no byte of an upload for this time.",
        counted=True,
        reloads=True,
    )
    min_receive_rate_bytes: int = setting(
        SIZE,
        "1K",
        "Bytes a second that a client must send of an upload, on average over "
        "--server-min-send-window; a slower one is cut off. 0 for no such limit.",
        counted=True,
        reloads=True,
    )
    max_uploads: int = setting(
        integer(at_least=1),
        "200",
        "Requests with a body that are received at the same time, at most; further ones get 503 "
        "with Retry-After.",
        shared=True,
        counted=True,
        reloads=True,
    )
    max_connections: int = setting(
        integer(at_least=1),
        "10000",
        "Open connections of clients, at most; ncps closes further ones immediately. If the limit "
        "of file descriptors allows fewer, new ones wait, and ncps logs this when it starts.",
        shared=True,
        counted=True,
        reloads=True,
    )
    max_connections_per_address: int = setting(
        integer(),
        "1000",
        "Open connections from one IPv4 address or one IPv6 /64 network, at most; ncps closes "
        "further ones immediately. 0 for no such limit, which suits a cache behind a large NAT. "
        "Connections over a UNIX socket are not counted. For --server-trusted-proxies ncps counts "
        "requests instead, each for the client that it comes from; further ones get 503.",
        shared=True,
        counted=True,
        reloads=True,
    )
    trusted_proxies: tuple[str, ...] = setting(
        TRUSTED_PROXY,
        (),
        "Reverse proxies whose X-Forwarded-For ncps trusts, or Forwarded if they send no "
        "X-Forwarded-For: addresses and networks such as 127.0.0.1 or 10.0.0.0/8, and unix for "
        "connections over a UNIX socket. The client, for the log and for limits, is the last "
        "address in the header that is not such a proxy. The proxies must add to X-Forwarded-For.",
        note="none",
        reloads=True,
    )
    max_requests: int = setting(
        integer(at_least=1),
        "5000",
        "Requests of clients that are answered at the same time, at most, slow readers of NARs "
        "included; further ones get 503 with Retry-After. /healthz, /readyz and /metrics are "
        "always answered.",
        shared=True,
        counted=True,
        reloads=True,
    )
    max_header_size_bytes: int = setting(
        size(at_least=1024, at_most=1024 * 1024),
        "16K",
        "Size of the head of a request, at most, its first line included; a larger one gets 431.",
        counted=True,
        reloads=True,
    )
    max_headers: int = setting(
        integer(at_least=16, at_most=10000),
        "500",
        "Fields in the head of a request, at most; a request with more gets 431.",
        counted=True,
        reloads=True,
    )
    workers: int = setting(
        integer(at_least=1, at_most=256),
        "1",
        "Processes that serve, on one port and one store. With more than one, another process "
        "starts and replaces them. More processes than processor cores are of no use. The limits "
        "on all clients together are divided among them. Linux only, and not under twistd.",
        flag="workers",
        environment="SERVER_WORKERS",
    )
