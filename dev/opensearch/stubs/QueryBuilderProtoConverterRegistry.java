package org.opensearch.transport.grpc.spi;

/** Replaces an interface of the gRPC module, see QueryBuilderProtoConverter. */
public interface QueryBuilderProtoConverterRegistry {
}
