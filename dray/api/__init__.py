"""Generated protobuf code of the wire contract, by API version."""
