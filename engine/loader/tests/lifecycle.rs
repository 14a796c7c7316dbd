//! init, registration and fini: their order, and what a failure undoes.

use std::cell::RefCell;

use engine_loader::{LoadedModule, Modules, Registrar, SearchPath, State};
use faulty_modules::compile;
use tempfile::TempDir;

/// Writes down what the loader asks of it; refuses the module named `refuses`.
struct Recorder {
    events: RefCell<Vec<String>>,
    refuses: &'static str,
}

impl Registrar for Recorder {
    fn table(&self) -> *const module_abi::dss_host {
        // None of the modules here calls the host.
        std::ptr::null()
    }

    fn announce(&self, _: &LoadedModule) -> Result<(), String> {
        Ok(())
    }

    fn register(&self, module: &LoadedModule) -> Result<(), String> {
        self.events
            .borrow_mut()
            .push(format!("register {}", module.name()));
        match module.name() == self.refuses {
            true => Err("protocol 4.1 is already registered".to_owned()),
            false => Ok(()),
        }
    }

    fn unregister(&self, module: &LoadedModule) {
        self.events
            .borrow_mut()
            .push(format!("unregister {}", module.name()));
    }
}

fn load(names: &[&str]) -> (Modules, TempDir) {
    let folder = TempDir::new().unwrap();
    for name in names {
        compile(name, folder.path());
    }
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    (
        Modules::load(&names, &SearchPath::new([folder.path().to_owned()])).unwrap(),
        folder,
    )
}

fn recorder(refuses: &'static str) -> Recorder {
    Recorder {
        events: RefCell::default(),
        refuses,
    }
}

fn states(modules: &Modules) -> Vec<State> {
    modules.iter().map(|(_, state)| state).collect()
}

#[test]
fn registered_in_order_finished_in_reverse() {
    let (mut modules, _folder) = load(&["hello_c", "setup_fails"]);
    let recorder = recorder("");
    modules.init(&recorder).unwrap();
    assert_eq!(states(&modules), [State::Registered, State::Registered]);
    modules.fini(&recorder);
    assert_eq!(
        *recorder.events.borrow(),
        [
            "register hello_c",
            "register setup_fails",
            "unregister setup_fails",
            "unregister hello_c"
        ]
    );
    assert_eq!(states(&modules), [State::Finished, State::Finished]);
}

#[test]
fn a_failing_init_keeps_its_own_code_and_undoes_the_earlier_ones() {
    let (mut modules, _folder) = load(&["hello_c", "init_fails", "setup_fails"]);
    let recorder = recorder("");
    let error = modules.init(&recorder).unwrap_err();
    assert_eq!(
        error.to_string(),
        "module `init_fails`: init failed: DER_NOSPACE(1007): no space left on storage target"
    );
    assert_eq!(
        *recorder.events.borrow(),
        ["register hello_c", "unregister hello_c"]
    );
    assert_eq!(
        states(&modules),
        [State::Finished, State::Failed, State::Loaded]
    );
}

#[test]
fn a_refused_registration_undoes_the_init() {
    let (mut modules, _folder) = load(&["hello_c", "setup_fails"]);
    let recorder = recorder("setup_fails");
    let error = modules.init(&recorder).unwrap_err();
    assert_eq!(
        error.to_string(),
        "module `setup_fails`: registration failed: protocol 4.1 is already registered"
    );
    assert_eq!(
        *recorder.events.borrow(),
        [
            "register hello_c",
            "register setup_fails",
            "unregister hello_c"
        ]
    );
    assert_eq!(states(&modules), [State::Finished, State::Failed]);
}
