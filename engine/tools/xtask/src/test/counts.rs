//! How many tests ran, read from what libtest and nextest print.

/// Tests that passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

/// How a program or a test says that it could test nothing here, and why: a line that begins with these words.
pub(crate) const SKIPPED_BECAUSE: &str = "skipped: ";

/// Why not, if a line says so. What a test wrote is set in by who shows it.
pub(crate) fn skipped(line: &str) -> Option<String> {
    let line = without_colours(line);
    let why = line.trim_start().strip_prefix(SKIPPED_BECAUSE)?;
    Some(why.to_owned())
}

impl Counts {
    pub(crate) fn and(self, other: Counts) -> Counts {
        Counts {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
        }
    }

    /// Adds a line if it is a summary.
    pub(crate) fn read_line(&mut self, line: &str) {
        let line = without_colours(line);
        let is_libtest = line.trim_start().starts_with("test result:");
        let is_nextest = line.trim_start().starts_with("Summary [") && line.contains("run:");
        if is_libtest || is_nextest {
            self.passed += before(&line, "passed");
            // nextest tells tests that failed from those that ran out of time or could not start
            self.failed += ["failed", "timed out", "exec failed"]
                .map(|word| before(&line, word))
                .iter()
                .sum::<usize>();
        }
    }
}

/// The number in front of a word.
fn before(line: &str, word: &str) -> usize {
    let ending = format!(" {word}");
    let parts = line.split([',', ';', ':', '.']);
    let mut numbers = parts.filter_map(|part| {
        let number = part.strip_suffix(&ending).or(part
            .trim_end()
            .split_once(&format!("{ending} ("))
            .map(|(n, _)| n))?;
        number.trim().parse::<usize>().ok()
    });
    numbers.next().unwrap_or(0)
}

/// The line without terminal escapes.
fn without_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut chars = line.trim_end().chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(lines: &[&str]) -> (usize, usize) {
        let mut counts = Counts::default();
        lines.iter().for_each(|line| counts.read_line(line));
        (counts.passed, counts.failed)
    }

    #[test]
    fn libtest_lines_add_up() {
        let lines = [
            "running 2 tests",
            "test a ... ok",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored",
        ];
        assert_eq!(counted(&lines), (15, 2));
    }

    #[test]
    fn nextest_summaries_are_read_with_and_without_colour() {
        assert_eq!(
            counted(&["     Summary [   0.005s] 10 tests run: 10 passed, 2 skipped"]),
            (10, 0)
        );
        assert_eq!(
            counted(&[
                "     Summary [   1.1s] 10 tests run: 7 passed (1 slow), 2 failed, 1 timed out, 0 skipped\n"
            ]),
            (7, 3)
        );
        let coloured = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.005s] \u{1b}[1m4\u{1b}[0m tests run: \u{1b}[1m4\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, 0 skipped";
        assert_eq!(counted(&[coloured]), (4, 0));
    }

    #[test]
    fn a_skip_says_why_wherever_it_is_shown() {
        let why = Some("needs root".to_owned());
        assert_eq!(skipped("skipped: needs root\n"), why);
        assert_eq!(skipped("\u{1b}[31m    skipped: needs root\u{1b}[0m\n"), why);
        assert_eq!(skipped("4 tests run: 4 passed, 0 skipped"), None);
    }

    #[test]
    fn other_lines_say_nothing() {
        assert_eq!(
            counted(&["5 passed; 3 failed", "error: 1 failed", ""]),
            (0, 0)
        );
    }
}
