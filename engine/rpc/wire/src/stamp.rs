//! What an engine adds to its calls to other engines of its group: the last bytes of the body, under its checksum.

/// Who calls, in which version of the group, and which call it is. Little-endian.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 4 | version of the group that the caller knows |
/// | 4 | 4 | rank of the caller |
/// | 8 | 8 | which life of the caller it is |
/// | 16 | 4 | lane: who of the caller counts the number |
/// | 20 | 4 | 0 |
/// | 24 | 8 | number of the call in its lane; 0: it may be carried out twice |
/// | 32 | 8 | the request that the caller works for; 0: none |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Version of the group that the caller knows.
    pub group: u32,
    /// Rank of the caller.
    pub rank: u32,
    /// Grows with every start of the caller.
    pub incarnation: u64,
    /// Numbers grow within one lane of one incarnation.
    pub lane: u32,
    /// The same when the call is sent again; 0: nobody needs to know.
    pub number: u64,
    /// The request that the caller works for, by the number that the engine gave it where it came in; 0: none.
    pub trace: u64,
}

impl Stamp {
    /// Bytes at the end of the body.
    pub const LEN: usize = 40;

    /// Appends it to a body.
    pub fn put(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.group.to_le_bytes());
        body.extend_from_slice(&self.rank.to_le_bytes());
        body.extend_from_slice(&self.incarnation.to_le_bytes());
        body.extend_from_slice(&self.lane.to_le_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(&self.number.to_le_bytes());
        body.extend_from_slice(&self.trace.to_le_bytes());
    }

    /// Takes it off the end of a body; `None` if the body is too short, which then stays as it is.
    pub fn take(body: &mut Vec<u8>) -> Option<Stamp> {
        let at = body.len().checked_sub(Stamp::LEN)?;
        let half = |from: usize| {
            let bytes = body.get(at + from..at + from + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let whole = |from: usize| Some(u64::from(half(from)?) | u64::from(half(from + 4)?) << 32);
        let stamp = Stamp {
            group: half(0)?,
            rank: half(4)?,
            incarnation: whole(8)?,
            lane: half(16)?,
            number: whole(24)?,
            trace: whole(32)?,
        };
        body.truncate(at);
        Some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_off_as_it_was_put_on() {
        let stamp = Stamp {
            group: 7,
            rank: 3,
            incarnation: 1 << 40,
            lane: 9,
            number: u64::MAX,
            trace: 1 << 50 | 3,
        };
        let mut body = b"what is asked".to_vec();
        stamp.put(&mut body);
        assert_eq!(body.len(), 13 + Stamp::LEN);
        assert_eq!(Stamp::take(&mut body), Some(stamp));
        assert_eq!(body, b"what is asked");
        assert_eq!(Stamp::take(&mut body), None);
        assert_eq!(body, b"what is asked");
    }
}
