"""A receiver of OTLP, over gRPC or HTTP, that writes the received items to standard output.

    python -m tests.machines.collector grpc|http PORT [CERTIFICATE KEY]

With a certificate it speaks TLS.

Each span, each metric and each record of the log is a line of JSON:
`{"signal": "traces", "resource": {…}, "headers": {…}, "item": {…}}`. The item is protobuf's JSON,
with attributes as an object.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

REQUESTS: dict[str, Any] = {
    "traces": trace_service_pb2.ExportTraceServiceRequest,
    "metrics": metrics_service_pb2.ExportMetricsServiceRequest,
    "logs": logs_service_pb2.ExportLogsServiceRequest,
}
ANSWERS: dict[str, Any] = {
    "traces": trace_service_pb2.ExportTraceServiceResponse,
    "metrics": metrics_service_pb2.ExportMetricsServiceResponse,
    "logs": logs_service_pb2.ExportLogsServiceResponse,
}
_PARTS = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
}
_lock = threading.Lock()


def tell(signal: str, request: Any, headers: Iterable[tuple[str, str]]) -> None:
    """Write all items of a request."""
    outer, middle, inner = _PARTS[signal]
    told = {name.lower(): str(value) for name, value in headers}
    lines = []
    for of_resource in MessageToDict(request).get(outer, ()):
        resource = plain(of_resource.get("resource", {})).get("attributes", {})
        for scope in of_resource.get(middle, ()):
            lines += [
                {"signal": signal, "resource": resource, "headers": told, "item": plain(item)}
                for item in scope.get(inner, ())
            ]
    with _lock:
        sys.stdout.write("".join(f"{json.dumps(line)}\n" for line in lines))
        sys.stdout.flush()


def plain(value: Any) -> Any:
    """Replace all lists of attributes by objects."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: {each["key"]: _value(each.get("value", {})) for each in inner}
        if name == "attributes"
        else plain(inner)
        for name, inner in value.items()
    }


def _value(value: Mapping[str, Any]) -> Any:
    kind, inner = next(iter(value.items()), ("stringValue", ""))
    return int(inner) if kind == "intValue" else inner


class Handler(BaseHTTPRequestHandler):
    """Receives OTLP over HTTP."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def do_POST(self) -> None:
        """Take a request."""
        signal = self.path.rpartition("/v1/")[2]
        request = REQUESTS[signal]()
        request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        tell(signal, request, self.headers.items())
        answer = ANSWERS[signal]().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


class Service:
    """Receives one signal of OTLP over gRPC."""

    def __init__(self, signal: str) -> None:
        self.signal = signal

    def Export(self, request: Any, context: Any) -> Any:
        """Take a request."""
        tell(self.signal, request, context.invocation_metadata())
        return ANSWERS[self.signal]()


def main(kind: str, port: int, *files: str) -> None:
    """Receive until killed."""
    if kind == "http":
        web = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        if files:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*files)
            web.socket = context.wrap_socket(web.socket, server_side=True)
        web.serve_forever()
        return
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service("traces"), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Service("metrics"), server)
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Service("logs"), server)
    if files:
        certificate, key = (Path(file).read_bytes() for file in files)
        credentials = grpc.ssl_server_credentials([(key, certificate)])
        server.add_secure_port(f"127.0.0.1:{port}", credentials)
    else:
        server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
