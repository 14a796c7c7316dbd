//! [`Tape`]: the bytes that decide.

/// What the device is when the bytes are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// As it should be.
    Honest,
    /// Gone: registers read as ones.
    Gone,
    /// It completes nothing.
    Silent,
}

/// Bytes, taken one after the other.
#[derive(Debug)]
pub struct Tape {
    bytes: Box<[u8]>,
    at: usize,
    rest: Rest,
}

/// Of 256 register reads so many are honest.
const HONEST_READS: u8 = 0xe8;

impl Tape {
    /// A tape. Its first byte says what the device is at the end.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Tape {
        let rest = match bytes.first().map_or(0, |first| first % 4) {
            2 => Rest::Gone,
            3 => Rest::Silent,
            _ => Rest::Honest,
        };
        Tape {
            bytes: bytes.into(),
            at: 1,
            rest,
        }
    }

    /// What comes after the end, once it is reached.
    pub(crate) fn ended(&self) -> Option<Rest> {
        (self.at >= self.bytes.len()).then_some(self.rest)
    }

    /// The next byte; 0 after the end, which means honest everywhere.
    pub(crate) fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    pub(crate) fn is_honest_read(&mut self) -> bool {
        self.byte() < HONEST_READS
    }
}
