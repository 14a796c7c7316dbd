//! dRPC on the wire: messages, chunk framing, blocking client.
