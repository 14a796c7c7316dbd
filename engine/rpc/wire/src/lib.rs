//! RPC on the wire: opcodes, frame header, blocking client.
