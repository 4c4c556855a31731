package org.opensearch.transport.grpc.spi;

/** Replaces an interface of the gRPC module, which no repository has: the k-NN plugin implements it at its start. */
public interface QueryBuilderProtoConverter {
}
