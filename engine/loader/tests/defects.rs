//! Every defect that shows while loading gives one exact message, and never stops the others from being judged.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use engine_loader::{Modules, SearchPath};
use faulty_modules::compile;
use tempfile::TempDir;

/// Loads `names` from `folder` and gives the messages, with the folder's path written as DIR.
fn messages(folder: &Path, names: &[&str]) -> Vec<String> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    match Modules::load(&names, &SearchPath::new([folder.to_owned()])) {
        Ok(_) => Vec::new(),
        Err(errors) => errors
            .0
            .iter()
            .map(|e| e.to_string().replace(&folder.display().to_string(), "DIR"))
            .collect(),
    }
}

fn message_of(defect: &str) -> String {
    let folder = TempDir::new().unwrap();
    compile(defect, folder.path());
    let mut messages = messages(folder.path(), &[defect]);
    assert_eq!(messages.len(), 1, "{defect}: {messages:?}");
    messages.remove(0)
}

#[test]
fn a_sound_module_loads() {
    let folder = TempDir::new().unwrap();
    compile("hello_c", folder.path());
    let modules = Modules::load(
        &["hello_c".to_owned()],
        &SearchPath::new([folder.path().to_owned()]),
    )
    .unwrap();
    let (module, _) = modules.iter().next().unwrap();
    assert_eq!(module.info().version_text(), "1.0.0");
    assert_eq!(
        (
            module.info().id,
            module.info().drpc_ids.as_slice(),
            module.info().about.as_str()
        ),
        (33, &[101][..], "greets over dRPC, in C")
    );
}

#[test]
fn modules_of_earlier_levels_load() {
    let folder = TempDir::new().unwrap();
    compile("level_one", folder.path());
    compile("level_two", folder.path());
    assert_eq!(
        messages(folder.path(), &["level_one", "level_two"]),
        Vec::<String>::new()
    );
}

#[test]
fn the_symbol_is_missing() {
    assert_eq!(
        message_of("no_symbol"),
        "module `no_symbol`: DIR/libno_symbol.so exports no symbol `no_symbol_module`"
    );
}

#[test]
fn the_symbol_is_no_descriptor() {
    assert_eq!(
        message_of("no_descriptor"),
        "module `no_descriptor`: `no_descriptor_module` is no module descriptor (magic 0xdeadbeef)"
    );
}

#[test]
fn the_descriptor_names_another_module() {
    assert_eq!(
        message_of("other_name"),
        "module `other_name`: its descriptor says it is `somebody_else`"
    );
}

#[test]
fn the_abi_is_older() {
    assert_eq!(
        message_of("old_abi"),
        "module `old_abi`: built for another module ABI (level: module 0, engine 1 to 3)"
    );
}

#[test]
fn the_abi_is_newer() {
    assert_eq!(
        message_of("new_abi"),
        "module `new_abi`: built for another module ABI (level: module 4, engine 1 to 3)"
    );
}

#[test]
fn the_layout_differs_at_the_same_level() {
    let expected = format!(
        "module `other_layout`: built for another module ABI (fingerprint: module 0x0000000000001234, engine {:#018x})",
        module_abi::DSS_ABI_FINGERPRINT
    );
    assert_eq!(message_of("other_layout"), expected);
    let size = size_of::<module_abi::dss_module>();
    let expected = format!(
        "module `other_size`: built for another module ABI (size of struct dss_module: module 8, engine {size})"
    );
    assert_eq!(message_of("other_size"), expected);
}

#[test]
fn a_function_nobody_defines_shows_at_load() {
    let message = message_of("undefined_symbol");
    assert!(
        message.starts_with(
            "module `undefined_symbol`: the dynamic loader refuses DIR/libundefined_symbol.so: "
        ),
        "{message}"
    );
    assert!(
        message.contains("undefined symbol: nobody_defines_this"),
        "{message}"
    );
}

#[test]
fn needs_are_unknown_or_circular() {
    assert_eq!(
        message_of("unknown_need"),
        "module `unknown_need` needs `time_travel`, which no loaded module provides"
    );
    let folder = TempDir::new().unwrap();
    compile("need_cycle_a", folder.path());
    compile("need_cycle_b", folder.path());
    assert_eq!(
        messages(folder.path(), &["need_cycle_a", "need_cycle_b"]),
        ["modules need each other in a circle: need_cycle_a -> need_cycle_b -> need_cycle_a"]
    );
}

#[test]
fn ids_are_taken_or_out_of_range() {
    let folder = TempDir::new().unwrap();
    for name in ["hello_c", "id_taken", "drpc_id_taken", "id_out_of_range"] {
        compile(name, folder.path());
    }
    assert_eq!(
        messages(
            folder.path(),
            &["hello_c", "id_taken", "drpc_id_taken", "id_out_of_range"]
        ),
        [
            "module `id_taken`: module id 33 already belongs to `hello_c`",
            "module `drpc_id_taken`: dRPC module id 101 is already served by `hello_c`",
            "module `id_out_of_range`: sm_mod_id is 64; ids are 0 to 63",
        ]
    );
}

#[test]
fn required_fields_are_missing() {
    assert_eq!(
        message_of("no_init"),
        "module `no_init`: sm_init is NULL; it is required"
    );
    assert_eq!(
        message_of("no_fini"),
        "module `no_fini`: sm_fini is NULL; it is required"
    );
    assert_eq!(
        message_of("key_without_fini"),
        "module `key_without_fini`: sm_key has no dmk_init or no dmk_fini; both are required"
    );
    assert_eq!(
        message_of("too_many_protos"),
        "module `too_many_protos`: sm_proto_count is 3; at most 2 versions are possible"
    );
}

#[test]
fn names_are_wrong() {
    let folder = TempDir::new().unwrap();
    compile("hello_c", folder.path());
    let long = "a".repeat(33);
    assert_eq!(
        messages(
            folder.path(),
            &[&long, "../evil", "", "helo_c", "hello_c", "hello_c"]
        ),
        [
            format!("module name `{long}` has 33 bytes; at most 32 are allowed"),
            "module name `../evil` is not made of a-z, 0-9 and `_`".to_owned(),
            "module name `` is not made of a-z, 0-9 and `_`".to_owned(),
            "module `helo_c`: no file libhelo_c.so in DIR (did you mean `hello_c`?)".to_owned(),
            "module `hello_c` is listed twice".to_owned(),
        ]
    );
}

#[test]
fn files_are_wrong() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(format!("lib{name}.so"));
    fs::write(at("text"), "not a library").unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("torn"), b"\x7fELF and then nothing of use").unwrap();
    fs::create_dir(at("folder")).unwrap();
    symlink("/nonexistent", at("dangling")).unwrap();
    for name in ["text", "empty", "torn"] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let messages = messages(
        folder.path(),
        &["text", "empty", "folder", "dangling", "torn"],
    );
    assert_eq!(
        messages[..4],
        [
            "module `text`: DIR/libtext.so is not an ELF file (it starts with 6e 6f 74 20)",
            "module `empty`: DIR/libempty.so is not an ELF file (it starts with nothing: it is empty)",
            "module `folder`: cannot read DIR/libfolder.so: not a regular file",
            "module `dangling`: cannot read DIR/libdangling.so: No such file or directory (os error 2)",
        ]
    );
    assert!(
        messages[4].starts_with("module `torn`: the dynamic loader refuses DIR/libtorn.so: "),
        "{}",
        messages[4]
    );
}

#[test]
fn files_that_others_may_write_are_refused() {
    let folder = TempDir::new().unwrap();
    let library = compile("hello_c", folder.path());
    fs::set_permissions(&library, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(
        messages(folder.path(), &["hello_c"]),
        ["module `hello_c`: DIR/libhello_c.so may be written by others (mode 0777)"]
    );
    fs::set_permissions(&library, fs::Permissions::from_mode(0o775)).unwrap();
    assert_eq!(
        messages(folder.path(), &["hello_c"]),
        ["module `hello_c`: DIR/libhello_c.so may be written by its group (mode 0775)"]
    );
}

#[test]
fn each_message_comes_with_a_cure() {
    let folder = TempDir::new().unwrap();
    let errors = Modules::load(
        &["gone".to_owned()],
        &SearchPath::new([folder.path().to_owned()]),
    )
    .unwrap_err();
    assert!(
        errors.to_string().ends_with(
            "\n  cure: build or install the module, or point modules.path at its folder"
        ),
        "{errors}"
    );
}
