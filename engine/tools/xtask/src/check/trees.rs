//! Small source trees for the rules' tests.

use tempfile::TempDir;

use crate::finding::Finding;
use crate::source_tree::SourceTree;

/// A tree of these files, read; the directory lives no longer than this call.
pub(crate) fn tree(files: &[(&str, &str)]) -> SourceTree {
    let dir = TempDir::new().expect("a scratch directory");
    for (path, text) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a file is in a directory"))
            .expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
    SourceTree::read(dir.path()).expect("a readable tree")
}

/// Findings as `path:line rule`, with the messages left out.
pub(crate) fn places(findings: &[Finding]) -> Vec<String> {
    findings
        .iter()
        .map(|finding| format!("{}:{} {}", finding.path, finding.line, finding.rule))
        .collect()
}
