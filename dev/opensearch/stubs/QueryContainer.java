package org.opensearch.protobufs;

/** Replaces a message of the gRPC module, which is never created here: the signatures of methods contain it. */
public class QueryContainer {
    public enum QueryContainerCase {
    }
}
