//! A small set of xstreams on real reactors.

use engine_tls::KeyRegistry;
use engine_xstream::{Core, Layout, LayoutOptions, StartOptions, XstreamSet};
use spdk_reactor::{ReactorOptions, ReactorSet};

/// The system's, two targets' and two helpers.
pub(crate) fn xstreams() -> XstreamSet {
    let options = LayoutOptions {
        targets: 2,
        helpers: 2,
        oversubscribe: true,
        ..LayoutOptions::default()
    };
    let cores = [0, 1].map(|cpu| Core::alone(cpu, 0));
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
