//! Buffers across the border.
//!
//! Invariants, besides H1 and H4 of `guard.rs`:
//! - B1: `owner` of a non-empty `dss_buf` is a [`Cover`] made by [`give`]; while the `dss_buf` is the module's, the
//!   cover holds the buffer, and nothing else refers to it. A `dss_buf` that moved to the engine is not used again.
//!   `magic` catches what never was one of ours, as far as that can be.
#![allow(
    unsafe_code,
    reason = "functions that modules call; buffers travel as addresses"
)]

use crate::guard::{Place, coded, entry, place};
use daos_errno::Der;
use module_abi::dss_buf;
use spdk_env::DmaBuf;
use std::cell::RefCell;

const MAGIC: u64 = 0x6675_6264_6c65_656b; // "keeldbuf"
/// Empty covers that an OS thread keeps, so that giving buffers allocates nothing.
const COVERS_MAX: usize = 1024;

/// Holds a buffer while a module has its address.
struct Cover {
    magic: u64,
    buf: Option<DmaBuf>,
}

thread_local! {
    #[allow(clippy::vec_box, reason = "the boxes are what is kept")]
    static COVERS: RefCell<Vec<Box<Cover>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer for a module; `len` of its bytes count.
pub(crate) fn give(buf: DmaBuf) -> dss_buf {
    let mut cover = COVERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| {
        Box::new(Cover {
            magic: MAGIC,
            buf: None,
        })
    });
    let (len, capacity, addr) = (
        buf.len() as u64,
        buf.capacity() as u64,
        buf.as_ptr().cast_mut().cast(),
    );
    if capacity == 0 {
        return dss_buf::EMPTY;
    }
    cover.magic = MAGIC;
    cover.buf = Some(buf);
    dss_buf {
        addr,
        len,
        capacity,
        owner: Box::into_raw(cover).cast(),
    }
}

/// A buffer from a module, still covered: it is the module's until [`Covered::take`].
pub(crate) struct Covered<'a>(&'a dss_buf);

impl Covered<'_> {
    /// `None`: empty. An error: not one of ours.
    pub(crate) fn of(raw: &dss_buf) -> Result<Option<Covered<'_>>, Der> {
        if raw.is_empty() {
            return Ok(None);
        }
        let cover = raw.owner.cast::<Cover>();
        if cover.is_null() || !cover.is_aligned() {
            return Err(Der::INVAL);
        }
        // SAFETY: B1.
        let cover = unsafe { &*cover };
        let whole = cover
            .buf
            .as_ref()
            .is_some_and(|buf| std::ptr::eq(buf.as_ptr(), raw.addr.cast()));
        if cover.magic == MAGIC && whole {
            Ok(Some(Covered(raw)))
        } else {
            Err(Der::INVAL)
        }
    }

    /// The buffer, with the length that the module says; the cover stays, empty, for [`Covered::put_back`].
    fn lift(&self) -> Option<DmaBuf> {
        // SAFETY: B1; `of` has looked at it.
        let cover = unsafe { &mut *self.0.owner.cast::<Cover>() };
        let mut buf = cover.buf.take()?;
        buf.set_len(
            usize::try_from(self.0.len)
                .unwrap_or(usize::MAX)
                .min(buf.capacity()),
        );
        Some(buf)
    }

    /// Offers the buffer to `f`, which gives it back with its error: then it is the module's as before.
    pub(crate) fn offer<R, E>(
        self,
        f: impl FnOnce(DmaBuf) -> Result<R, (E, Option<DmaBuf>)>,
    ) -> Result<R, E>
    where
        E: From<Der>,
    {
        let buf = self.lift().ok_or(Der::INVAL)?;
        match f(buf) {
            Ok(result) => {
                self.bare();
                Ok(result)
            }
            Err((error, buf)) => {
                // SAFETY: B1.
                unsafe { &mut *self.0.owner.cast::<Cover>() }.buf = buf;
                Err(error)
            }
        }
    }

    /// Takes the buffer for good.
    pub(crate) fn take(self) -> Option<DmaBuf> {
        let buf = self.lift();
        self.bare();
        buf
    }

    /// The empty cover is used again.
    fn bare(self) {
        // SAFETY: B1: made by `Box::into_raw` in `give`; the `dss_buf` is ours now.
        let mut cover = unsafe { Box::from_raw(self.0.owner.cast::<Cover>()) };
        cover.magic = 0; // a second use of the same dss_buf is caught while the cover waits
        let spare = COVERS.with_borrow_mut(|covers| {
            if covers.len() < COVERS_MAX {
                covers.push(cover);
                return None;
            }
            Some(cover)
        });
        drop(spare);
    }
}

/// A buffer that moved here, with what is wrong about it logged.
pub(crate) fn taken(function: &'static str, raw: &dss_buf) -> Option<DmaBuf> {
    match Covered::of(raw) {
        Ok(covered) => covered?.take(),
        Err(_) => {
            tracing::error!(
                function,
                "called with a buffer that is not the engine's, or was given away before"
            );
            None
        }
    }
}

pub(crate) unsafe extern "C" fn alloc(len: u64, out: *mut dss_buf) -> i32 {
    coded("buf_alloc", || {
        let here = place("buf_alloc", None, Place::Xstream)?;
        let wanted = usize::try_from(len)
            .ok()
            .filter(|len| *len > 0)
            .ok_or(Der::INVAL)?;
        if out.is_null() {
            return Err(Der::INVAL);
        }
        let buf = here.lent.buffer(wanted).ok_or(Der::NOMEM)?;
        // SAFETY: H1.
        unsafe { out.write(give(buf)) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn free(buf: dss_buf) {
    entry("buf_free", (), || drop(taken("buf_free", &buf)));
}
