//! Payloads, reads and random work shared by the tests.

use obj_store::{CSUM_CHUNK, Payload, Store, StoreError, UNIT};

use crate::sim::{CONT, SimDev};

pub(crate) fn payload(data: &[u8]) -> Payload<Vec<u8>> {
    let mut buf = data.to_vec();
    buf.resize(data.len().next_multiple_of(UNIT), 0xee);
    Payload {
        buf,
        len: data.len(),
        csums: data.chunks(CSUM_CHUNK).map(crc32c::crc32c).collect(),
    }
}

/// Bytes that only this seed has.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    use rand::{RngCore, SeedableRng};
    let mut data = vec![0; len];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut data);
    data
}

pub(crate) async fn put(store: &Store<SimDev>, name: &str, data: &[u8]) -> Result<(), StoreError> {
    store.put(&CONT, name, payload(data), 5).await.map(drop)
}

/// The whole object, if all of it is on this target.
pub(crate) async fn get(store: &Store<SimDev>, name: &str) -> Result<Vec<u8>, StoreError> {
    let info = store.stat(&CONT, name)?;
    let mut data = Vec::new();
    for piece in 0..info.pieces {
        let len = (info.size - u64::from(piece) * (1 << 20)).min(1 << 20) as u32;
        let part = store
            .get_piece(&CONT, name, (info.version, piece), (0, len))
            .await?;
        assert_eq!((part.offset, part.len), (0, len as usize));
        data.extend_from_slice(&part.buf[..part.len]);
    }
    Ok(data)
}

pub(crate) fn names(store: &Store<SimDev>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let after = names.last().cloned().unwrap_or_default();
        let page = store.list(&CONT, &after, "", 7).unwrap();
        names.extend(page.objects.into_iter().map(|o| o.name));
        if !page.more {
            return names;
        }
    }
}

/// Drops everything that waits to be reclaimed, as the engine does for one target alone.
pub(crate) async fn reclaim_all(store: &Store<SimDev>) {
    for reclaim in store.reclaims(usize::MAX) {
        store
            .drop_version(&reclaim.cont, reclaim.version)
            .await
            .unwrap();
        store.reclaim_done(reclaim).await.unwrap();
    }
}

/// Units that live objects of these sizes take.
pub(crate) fn units(sizes: impl IntoIterator<Item = usize>) -> u64 {
    sizes.into_iter().map(|n| n.div_ceil(UNIT) as u64).sum()
}
