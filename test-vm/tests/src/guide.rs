//! `docs/operating/install.md`, as its reader types it: commands and files in order.

/// The guide itself.
pub(crate) const INSTALL: &str = include_str!("../../../docs/operating/install.md");

/// What the reader does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A command in a shell: an indented line.
    Command(String),
    /// A file: a fenced block, in this language.
    File { language: String, text: String },
}

/// A section's title, and its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) steps: Vec<Step>,
}

/// The sections of a guide.
pub(crate) fn sections(guide: &str) -> Vec<Section> {
    let mut sections = vec![Section {
        title: String::new(),
        steps: Vec::new(),
    }];
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            sections.push(Section {
                title: title.to_owned(),
                steps: Vec::new(),
            });
            continue;
        }
        let step = if let Some(language) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            Step::File {
                language: language.to_owned(),
                text: block.join("\n") + "\n",
            }
        } else if let Some(command) = line.strip_prefix("    ") {
            Step::Command(command.to_owned())
        } else {
            continue;
        };
        if let Some(section) = sections.last_mut() {
            section.steps.push(step);
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_files_come_in_order() {
        let guide = "# T\n\n    first\n\n## One\n\ntext `x`\n\n```ini\n[a]\n    b\n```\n\n    second   # why\n## Two\n";
        let found = sections(guide);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].steps, [Step::Command("first".into())]);
        let file = Step::File {
            language: "ini".into(),
            text: "[a]\n    b\n".into(),
        };
        assert_eq!(
            found[1].steps,
            [file, Step::Command("second   # why".into())]
        );
        assert_eq!((found[2].title.as_str(), found[2].steps.len()), ("Two", 0));
    }
}
