//! One xstream's side of the host: who it is, and what modules hold there.
//!
//! Found through the storage that is current (`engine_tls`), so it is right inside TLS constructors and destructors, too,
//! and several xstreams on one OS thread do not mix.

use crate::handles::Handles;
use crate::host::Lent;
use engine_tls::{Storage, Tags, XsInfo, current_storage};
use module_abi::dss_module_info;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

thread_local! {
    static HERE: RefCell<Vec<(*const Storage, Rc<Here>)>> = const { RefCell::new(Vec::new()) };
}

pub(crate) struct Here {
    pub(crate) lent: Arc<Lent>,
    pub(crate) info: dss_module_info,
    pub(crate) handles: Handles,
}

impl Here {
    pub(crate) fn is_system(&self) -> bool {
        let tags = Tags(self.info.dmi_tag);
        tags.matches(Tags::SYS) && !tags.matches(Tags::TGT)
    }

    pub(crate) fn is_main(&self) -> bool {
        Tags(self.info.dmi_tag).matches(Tags::TGT)
    }
}

/// The current xstream's side; `None` on a thread that is no xstream.
pub(crate) fn current() -> Option<Rc<Here>> {
    let storage = current_storage();
    if storage.is_null() {
        return None;
    }
    HERE.with_borrow(|all| {
        all.iter()
            .find(|(place, _)| std::ptr::eq(*place, storage))
            .map(|(_, here)| Rc::clone(here))
    })
}

/// Where the current xstream's info stands; it lives as long as the xstream.
pub(crate) fn info() -> *const dss_module_info {
    let storage = current_storage();
    HERE.with_borrow(|all| {
        let mine = all
            .iter()
            .find(|(place, _)| !storage.is_null() && std::ptr::eq(*place, storage));
        mine.map_or(std::ptr::null(), |(_, here)| &raw const here.info)
    })
}

/// The xstream's own value under the host's key: enters its side into this OS thread's list, and ends it.
pub(crate) struct Guard(*const Storage);

impl Guard {
    pub(crate) fn new(lent: Arc<Lent>, info: &XsInfo) -> Guard {
        let storage = current_storage();
        let info = dss_module_info {
            dmi_xs_id: info.xs_id,
            dmi_tgt_id: info.tgt_id,
            dmi_tag: info.tags.0,
            dmi_tgt_nr: lent.targets,
        };
        let here = Here {
            lent,
            info,
            handles: Handles::new(info.dmi_xs_id),
        };
        HERE.with_borrow_mut(|all| all.push((storage, Rc::new(here))));
        Guard(storage)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mine = HERE.with_borrow_mut(|all| {
            let place = all
                .iter()
                .position(|(storage, _)| std::ptr::eq(*storage, self.0));
            place.map(|place| all.swap_remove(place).1)
        });
        if let Some(here) = mine {
            here.handles.end();
        }
    }
}
