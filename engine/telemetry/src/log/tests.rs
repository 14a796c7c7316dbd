//! What reaches the file under which mask.

use super::*;

const WAIT: Duration = Duration::from_secs(30);

fn log_to_file(format: Format, mask: &str, act: impl FnOnce(&LogControl)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("engine.log");
    let options = LogOptions {
        format,
        mask: mask.to_owned(),
        file: Some(file.clone()),
    };
    let (dispatch, control) = build(&options).unwrap();
    tracing::dispatcher::with_default(&dispatch, || act(&control));
    assert!(control.flush(WAIT));
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn the_mask_decides_and_changes_while_running() {
    let text = log_to_file(Format::Text, "WARN,rpc=DEBUG", |control| {
        tracing::info!("quiet one");
        tracing::debug!(target: "engine_rpc::listen", "rpc detail");
        tracing::error!(code = -1003, "loud one");
        control.set_mask("DEBUG").unwrap();
        tracing::debug!("detail");
        control.set_mask("ERR").unwrap();
        tracing::warn!("late warning");
    });
    assert!(
        !text.contains("quiet one") && !text.contains("late warning"),
        "{text}"
    );
    for line in [
        "rpc detail",
        "loud one",
        "code=-1003",
        "detail",
        "log mask changed",
    ] {
        assert!(text.contains(line), "{line:?} missing in {text}");
    }
    assert!(!text.contains('\u{1b}'), "no colours in a file: {text}");
}

#[test]
fn a_bad_mask_is_refused_and_the_old_one_stays() {
    let text = log_to_file(Format::Text, "WARN", |control| {
        let why = control.set_mask("DEBUG,rcp=TRACE").unwrap_err().to_string();
        assert!(why.contains("rcp") && why.contains("rpc"), "{why}");
        assert_eq!(control.mask(), "WARN");
        tracing::info!("quiet one");
        tracing::warn!("loud one");
    });
    assert!(
        !text.contains("quiet one") && text.contains("loud one"),
        "{text}"
    );
}

#[test]
fn json_is_one_object_per_line() {
    let text = log_to_file(Format::Json, "INFO", |_| {
        tracing::info!(target_id = 3, "a \"quoted\"\nmessage");
        tracing::warn!("second");
    });
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0]["message"], "a \"quoted\"\nmessage");
    assert_eq!(lines[0]["target_id"], 3);
    assert_eq!(lines[1]["level"], "WARN");
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let options = LogOptions {
        file: Some("/proc/no/such/engine.log".into()),
        ..LogOptions::default()
    };
    let why = build(&options).unwrap_err().to_string();
    assert!(why.contains("/proc/no/such/engine.log"), "{why}");
}

#[test]
fn a_log_is_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("engine.log");
    std::fs::write(&file, "from before\n").unwrap();
    let (dispatch, control) = build(&LogOptions {
        file: Some(file.clone()),
        ..LogOptions::default()
    })
    .unwrap();
    tracing::dispatcher::with_default(&dispatch, || tracing::info!("now"));
    assert!(control.flush(WAIT));
    let text = std::fs::read_to_string(file).unwrap();
    assert!(
        text.starts_with("from before\n") && text.contains("now"),
        "{text}"
    );
}
