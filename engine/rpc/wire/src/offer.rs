//! Bulk data that stays with the requester until the engine asks for it (Mercury: a bulk handle, and `HG_Bulk_transfer` with
//! `HG_BULK_PULL`).
//!
//! A request with [`crate::FLAG_OFFER`] carries no data, only how much of it there is ([`Offer`], at the end of its body). While the
//! request is not answered, the engine may ask for parts: a *request* frame of opcode [`crate::Opcode::PULL`] in the other
//! direction, with the id of the request that offers and a [`Pull`] as its body. The requester answers each with a response frame
//! of that opcode, whose request id is the pull's number and whose bulk is the data, or whose status says why not: NONEXIST (it
//! offers nothing under that id any more), OVERFLOW (not all of that range).

/// What a request offers, as the last bytes of its body (before a [`crate::Stamp`]). Little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Bytes that may be asked for.
    pub bytes: u64,
}

impl Offer {
    /// Bytes at the end of the body.
    pub const LEN: usize = 8;

    /// Appends it to a body.
    pub fn put(self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.bytes.to_le_bytes());
    }

    /// Takes it off the end of a body; `None` if the body is too short, which then stays as it is.
    pub fn take(body: &mut Vec<u8>) -> Option<Offer> {
        let bytes = u64::from_le_bytes(*body.last_chunk()?);
        body.truncate(body.len() - Offer::LEN);
        Some(Offer { bytes })
    }
}

/// Which part of what is offered the engine wants. Little-endian: number, offset, length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pull {
    /// Names the answer; unique among the pulls under way on the connection.
    pub number: u64,
    /// Where the part begins.
    pub offset: u64,
    /// Its length, at most [`crate::MAX_BULK`].
    pub len: u32,
}

impl Pull {
    /// Bytes of the body.
    pub const LEN: usize = 20;

    /// The body.
    pub fn encode(&self) -> [u8; Pull::LEN] {
        let mut out = [0; Pull::LEN];
        out[..8].copy_from_slice(&self.number.to_le_bytes());
        out[8..16].copy_from_slice(&self.offset.to_le_bytes());
        out[16..].copy_from_slice(&self.len.to_le_bytes());
        out
    }

    /// Reads a body; `None` if it is none.
    pub fn decode(body: &[u8]) -> Option<Pull> {
        let body: &[u8; Pull::LEN] = body.try_into().ok()?;
        Some(Pull {
            number: u64::from_le_bytes(*body.first_chunk()?),
            offset: u64::from_le_bytes(*body[8..].first_chunk()?),
            len: u32::from_le_bytes(*body.last_chunk()?),
        })
    }

    /// The range within `bytes` bytes; `None` if it is not all there.
    pub fn range(&self, bytes: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(self.offset).ok()?;
        let end = start.checked_add(self.len as usize)?;
        (end <= bytes).then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_comes_off_as_it_was_put_on() {
        let mut body = b"what is asked".to_vec();
        let offer = Offer { bytes: 1 << 40 };
        offer.put(&mut body);
        assert_eq!(body.len(), 13 + Offer::LEN);
        assert_eq!(Offer::take(&mut body), Some(offer));
        assert_eq!(body, b"what is asked");
        body.truncate(7);
        assert_eq!(Offer::take(&mut body), None);
        assert_eq!(body, b"what is");
    }

    #[test]
    fn a_pull_names_a_range_that_is_there() {
        let pull = Pull {
            number: 1 << 33 | 5,
            offset: 1 << 20,
            len: 4096,
        };
        let mut bytes = pull.encode().to_vec();
        assert_eq!(Pull::decode(&bytes), Some(pull));
        bytes.push(0);
        assert_eq!(Pull::decode(&bytes), None);
        assert_eq!(Pull::decode(&bytes[..19]), None);
        let end = (1 << 20) + 4096;
        assert_eq!(pull.range(end), Some(1 << 20..end));
        assert_eq!(pull.range(end - 1), None);
        let far = Pull {
            offset: u64::MAX,
            ..pull
        };
        assert_eq!(far.range(usize::MAX), None);
    }
}
