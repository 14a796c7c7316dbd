//! Frames: length of the header, length of the data (each 32 bits, little endian), the header as JSON, the data.

use std::io::{self, ErrorKind, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Most bytes of data in a frame.
pub const MAX_DATA: usize = 256 << 10;
/// Most bytes of a header: command lines and paths.
const MAX_HEADER: usize = 256 << 10;

#[derive(Serialize, Deserialize)]
struct Header<T> {
    call: u32,
    body: T,
}

/// Writes one frame in one piece. Data beyond [`MAX_DATA`] is refused.
pub fn write<T: Serialize>(
    out: &mut impl Write,
    call: u32,
    body: &T,
    data: &[u8],
) -> io::Result<()> {
    let header = serde_json::to_vec(&Header { call, body })?;
    if data.len() > MAX_DATA || header.len() > MAX_HEADER {
        let message = format!(
            "a frame of {} + {} bytes is too long",
            header.len(),
            data.len()
        );
        return Err(io::Error::new(ErrorKind::InvalidInput, message));
    }
    let mut frame = Vec::with_capacity(8 + header.len() + data.len());
    for len in [header.len(), data.len()] {
        let len = u32::try_from(len).map_err(io::Error::other)?;
        frame.extend_from_slice(&len.to_le_bytes());
    }
    frame.extend_from_slice(&header);
    frame.extend_from_slice(data);
    out.write_all(&frame)?;
    out.flush()
}

/// Reads one frame: call, body, data. `None` at a clean end of the stream.
pub fn read<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<Option<(u32, T, Vec<u8>)>> {
    let mut lengths = [0; 8];
    if input.read(&mut lengths[..1])? == 0 {
        return Ok(None);
    }
    input.read_exact(&mut lengths[1..])?;
    let [a, b, c, d, e, f, g, h] = lengths;
    let header_len = u32::from_le_bytes([a, b, c, d]) as usize;
    let data_len = u32::from_le_bytes([e, f, g, h]) as usize;
    if header_len > MAX_HEADER || data_len > MAX_DATA {
        let message = format!("a frame claims {header_len} + {data_len} bytes");
        return Err(io::Error::new(ErrorKind::InvalidData, message));
    }
    let mut header = vec![0; header_len];
    input.read_exact(&mut header)?;
    let mut data = vec![0; data_len];
    input.read_exact(&mut data)?;
    let Header { call, body } = serde_json::from_slice(&header)?;
    Ok(Some((call, body, data)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reply, Request};

    #[test]
    fn frames_come_back_in_order() {
        let mut stream = Vec::new();
        let get = Request::Get {
            path: "/a b".into(),
            offset: 7,
        };
        write(&mut stream, 1, &get, b"").unwrap();
        write(&mut stream, u32::MAX, &get, &[9; MAX_DATA]).unwrap();
        let mut input = stream.as_slice();
        assert_eq!(read(&mut input).unwrap(), Some((1, get.clone(), vec![])));
        assert_eq!(
            read(&mut input).unwrap(),
            Some((u32::MAX, get, vec![9; MAX_DATA]))
        );
        assert_eq!(read::<Request>(&mut input).unwrap(), None);
    }

    #[test]
    fn what_is_too_long_is_neither_sent_nor_awaited() {
        let mut stream = Vec::new();
        let error = write(&mut stream, 1, &Reply::Data, &[0; MAX_DATA + 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let claim = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        let error = read::<Reply>(&mut claim.as_slice()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn a_stream_cut_in_a_frame_is_an_error() {
        let mut stream = Vec::new();
        write(&mut stream, 1, &Reply::Done, b"").unwrap();
        for len in 1..stream.len() {
            assert!(read::<Reply>(&mut &stream[..len]).is_err(), "{len}");
        }
    }
}
