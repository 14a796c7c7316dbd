//! A small set of xstreams on real reactors.

use engine_tls::KeyRegistry;
use engine_xstream::{Core, Layout, LayoutOptions, StartOptions, XstreamSet};
use spdk_reactor::{ReactorOptions, ReactorSet};

/// The system's, two targets' and two helpers.
pub(crate) fn xstreams() -> XstreamSet {
    let options = LayoutOptions {
        targets: 2,
        helpers: 2,
        first_core: None,
        numa_node: None,
        oversubscribe: true,
    };
    let cores = [0, 1].map(|cpu| Core {
        cpu,
        node: 0,
        sibling: false,
    });
    let layout = Layout::compute(&options, &cores).unwrap();
    let reactors = ReactorOptions {
        cpus: layout.cpus(),
        pin: false,
        ..ReactorOptions::default()
    };
    let reactors = ReactorSet::start(&reactors).unwrap();
    XstreamSet::start(
        layout,
        reactors,
        &KeyRegistry::new(),
        &StartOptions::default(),
    )
    .unwrap()
}
