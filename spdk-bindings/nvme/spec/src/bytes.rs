//! Little-endian fields of byte structures whose length is known.

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

pub(crate) fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from(u64_at(bytes, at)) | u128::from(u64_at(bytes, at + 8)) << 64
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// An ASCII field, padded with spaces: printable characters only, trimmed (Base 1.4.2).
pub(crate) fn text_at(bytes: &[u8], at: usize, len: usize) -> String {
    let printable = |byte: &u8| match byte {
        0x20..=0x7e => char::from(*byte),
        _ => ' ',
    };
    let text: String = bytes[at..at + len].iter().map(printable).collect();
    text.trim().to_owned()
}

pub(crate) fn put_text(bytes: &mut [u8], at: usize, len: usize, text: &str) {
    bytes[at..at + len].fill(b' ');
    for (to, from) in bytes[at..at + len].iter_mut().zip(text.bytes()) {
        *to = from;
    }
}
