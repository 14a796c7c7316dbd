//! A module whose init panics: the SDK must contain it, the engine must name it and end in good order.

use module_sdk::Der;

module_sdk::module! {
    name: init_panics,
    id: 47,
    about: "panics in its init",
    init: init,
}

fn init() -> Result<(), Der> {
    panic!("init_panics does what its name says")
}
