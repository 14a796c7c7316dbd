//! HELLO: the first exchange on a connection.
//!
//! The client says which protocol it speaks and which xstream it wants ([`HelloRequest`], opcode
//! [`crate::Opcode::HELLO`]); the engine hands the socket to that xstream and answers with what the client must know
//! to behave ([`HelloReply`]). Fields are little-endian; bytes behind those known here are ignored, so either side may
//! say more in a later release.

/// Version of the exchange over frames: HELLO, opcodes, meaning of tag and status.
pub const PROTOCOL: u32 = 1;

/// Body of the HELLO request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloRequest {
    /// The protocol that the client speaks: [`PROTOCOL`].
    pub protocol: u32,
    /// Xstream that shall own the connection: 0 = system, 1 + t = main of target t.
    pub tag: u32,
}

/// Body of the HELLO response, also when its status is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloReply {
    /// The protocol that the engine speaks.
    pub protocol: u32,
    /// Targets of the engine: tags 1 to `targets` exist besides 0.
    pub targets: u32,
    /// Requests that the engine accepts in flight on this connection; further ones wait in the socket.
    pub max_in_flight: u32,
    /// Longest bulk of a request, bytes.
    pub max_bulk: u32,
    /// Pulls under way on the connection at most; 0: the engine is older than them, and requests that offer data are not understood.
    pub max_pulls: u32,
}

impl HelloRequest {
    /// Bytes of the body.
    pub const LEN: usize = 8;

    /// The body.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        put(&mut out, 0, self.protocol);
        put(&mut out, 1, self.tag);
        out
    }

    /// Reads a body; `None` if it is too short.
    pub fn decode(body: &[u8]) -> Option<HelloRequest> {
        Some(HelloRequest {
            protocol: get(body, 0)?,
            tag: get(body, 1)?,
        })
    }
}

impl HelloReply {
    /// Bytes of the body.
    pub const LEN: usize = 20;

    /// The body.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        put(&mut out, 0, self.protocol);
        put(&mut out, 1, self.targets);
        put(&mut out, 2, self.max_in_flight);
        put(&mut out, 3, self.max_bulk);
        put(&mut out, 4, self.max_pulls);
        out
    }

    /// Reads a body; `None` if it is too short.
    pub fn decode(body: &[u8]) -> Option<HelloReply> {
        Some(HelloReply {
            protocol: get(body, 0)?,
            targets: get(body, 1)?,
            max_in_flight: get(body, 2)?,
            max_bulk: get(body, 3)?,
            max_pulls: get(body, 4).unwrap_or(0),
        })
    }
}

fn put(out: &mut [u8], word: usize, value: u32) {
    out[word * 4..word * 4 + 4].copy_from_slice(&value.to_le_bytes());
}

fn get(body: &[u8], word: usize) -> Option<u32> {
    let bytes = body.get(word * 4..word * 4 + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        let request = HelloRequest {
            protocol: 1,
            tag: 5,
        };
        assert_eq!(HelloRequest::decode(&request.encode()), Some(request));
        let reply = HelloReply {
            protocol: 1,
            targets: 4,
            max_in_flight: 64,
            max_bulk: 1 << 22,
            max_pulls: 8,
        };
        assert_eq!(HelloReply::decode(&reply.encode()), Some(reply));
    }

    #[test]
    fn short_bodies_are_refused_and_longer_ones_read() {
        assert_eq!(HelloRequest::decode(&[1, 0, 0, 0, 2, 0, 0]), None);
        assert_eq!(HelloReply::decode(&[0; 15]), None);
        let older = HelloReply::decode(&[1; 16]).unwrap();
        assert_eq!((older.max_bulk, older.max_pulls), (0x0101_0101, 0));
        assert_eq!(
            HelloRequest::decode(&[1, 0, 0, 0, 2, 0, 0, 0, 9]),
            Some(HelloRequest {
                protocol: 1,
                tag: 2
            })
        );
    }
}
