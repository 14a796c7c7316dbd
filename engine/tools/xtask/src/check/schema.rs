//! Rule `schema`: config/schema holds the schema of the configuration as it is.

use crate::finding::Finding;
use crate::source_tree::SourceTree;

const FILE: &str = "config/schema/engine.schema.json";

pub(crate) fn check(tree: &SourceTree) -> Vec<Finding> {
    if tree.text(FILE) == Some(&engine_config::schema_json()) {
        return Vec::new();
    }
    vec![Finding::fail(
        "schema",
        FILE,
        0,
        "is stale: run `cargo xtask check --update`",
    )]
}

pub(crate) fn updated() -> (&'static str, String) {
    (FILE, engine_config::schema_json())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::trees::{places, tree};

    #[test]
    fn the_written_schema_is_fresh_and_anything_else_stale() {
        assert!(check(&tree(&[(FILE, &updated().1)])).is_empty());
        assert_eq!(
            places(&check(&tree(&[(FILE, "{}")]))),
            [format!("{FILE}:0 schema")]
        );
        assert_eq!(places(&check(&tree(&[]))), [format!("{FILE}:0 schema")]);
    }
}
