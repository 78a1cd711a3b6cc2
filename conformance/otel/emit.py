"""Sends traces of three services with the OpenTelemetry SDK, as its users do.

usage: emit.py ENDPOINT grpc|http none|gzip TRACES
"""

import sys

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import SpanKind


def exporter(way, endpoint, compression):
    if way == "grpc":
        from grpc import Compression
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        chosen = {"none": Compression.NoCompression, "gzip": Compression.Gzip}[compression]
        return OTLPSpanExporter(endpoint=endpoint, insecure=True, compression=chosen)
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    chosen = {"none": Compression.NoCompression, "gzip": Compression.Gzip}[compression]
    return OTLPSpanExporter(endpoint=endpoint + "/v1/traces", compression=chosen)


class Watched:
    """An exporter that remembers whether everything was taken."""

    def __init__(self, inner):
        self.inner, self.failed, self.taken = inner, 0, 0

    def export(self, spans):
        result = self.inner.export(spans)
        self.failed += result is not SpanExportResult.SUCCESS
        self.taken += len(spans)
        return result

    def force_flush(self, timeout_millis=30_000):
        return self.inner.force_flush(timeout_millis)

    def shutdown(self):
        self.inner.shutdown()


def main():
    endpoint, way, compression, traces = sys.argv[1:]
    exporters, providers, tracers = [], [], {}
    for name in ["front", "orders", "ledger"]:
        resource = Resource.create({"service.name": name, "service.version": "1", "service.instance.id": name + "-0"})
        provider = TracerProvider(resource=resource)
        watched = Watched(exporter(way, endpoint, compression))
        provider.add_span_processor(BatchSpanProcessor(watched))
        exporters.append(watched)
        providers.append(provider)
        tracers[name] = provider.get_tracer("conformance")

    def call(caller, callee, name, within):
        client = tracers[caller].start_span(name, within, kind=SpanKind.CLIENT)
        server = tracers[callee].start_span(name, trace.set_span_in_context(client), kind=SpanKind.SERVER)
        return client, server

    for number in range(int(traces)):
        root = tracers["front"].start_span(f"POST /orders/{number}?x=1", kind=SpanKind.SERVER)
        client, order = call("front", "orders", "Place", trace.set_span_in_context(root))
        inner, entry = call("orders", "ledger", "Book", trace.set_span_in_context(order))
        for span in [entry, inner, order, client, root]:
            span.end()
        if number % 200 == 199:
            # The SDK drops what does not fit into its queue, and this is faster than any service.
            assert all(provider.force_flush() for provider in providers)
    for provider in providers:
        provider.shutdown()
    failed = sum(watched.failed for watched in exporters)
    print(f'{{"taken": {sum(watched.taken for watched in exporters)}, "failed": {failed}}}')
    sys.exit(1 if failed else 0)


main()
