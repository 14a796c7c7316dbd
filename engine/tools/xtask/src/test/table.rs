//! The table at the end.

use std::time::Duration;

use super::stage::Outcome;

pub(crate) struct Row {
    pub(crate) stage: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

/// One line for each stage, and the closing line `N passed, N failed`.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut text = format!(
        "\n{:<10} {:<8} {:>7} {:>7} {:>9}\n",
        "stage", "result", "passed", "failed", "time"
    );
    for Row {
        stage,
        outcome,
        took,
    } in rows
    {
        let result = match outcome {
            Outcome {
                skipped: Some(_), ..
            } => "skipped",
            outcome if outcome.has_failed() => "FAILED",
            _ => "ok",
        };
        let Outcome { passed, failed, .. } = outcome;
        let note = match (&outcome.skipped, &outcome.unable[..]) {
            (Some(why), _) => format!("  {why}"),
            (None, []) => String::new(),
            (None, unable) => format!("  {} skipped: {}", unable.len(), unable.join("; ")),
        };
        text += &format!(
            "{stage:<10} {result:<8} {passed:>7} {failed:>7} {:>7.1} s{note}\n",
            took.as_secs_f64()
        );
    }
    let sum = |of: fn(&Outcome) -> usize| rows.iter().map(|row| of(&row.outcome)).sum::<usize>();
    let took: Duration = rows.iter().map(|row| row.took).sum();
    text += &format!(
        "{:<10} {:<8} {:>7} {:>7} {:>7.1} s\n\n",
        "all",
        "",
        "",
        "",
        took.as_secs_f64()
    );
    text + &format!(
        "{} passed, {} failed\n",
        sum(|outcome| outcome.passed),
        sum(|outcome| outcome.failed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_adds_up() {
        let row = |stage, passed, failed, skipped: Option<&str>| Row {
            stage,
            outcome: Outcome {
                passed,
                failed,
                skipped: skipped.map(str::to_owned),
                unable: Vec::new(),
            },
            took: Duration::from_millis(1500),
        };
        let mut rows = [
            row("fmt", 1, 0, None),
            row("deny", 0, 0, Some("not installed")),
            row("test", 120, 2, None),
            row("doc", 7, 0, None),
        ];
        rows[3].outcome.unable = vec!["no root".to_owned(), "no `ip`".to_owned()];
        let text = render(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "fmt        ok             1       0     1.5 s");
        assert_eq!(
            lines[3],
            "deny       skipped        0       0     1.5 s  not installed"
        );
        assert_eq!(lines[4], "test       FAILED       120       2     1.5 s");
        assert_eq!(
            lines[5],
            "doc        ok             7       0     1.5 s  2 skipped: no root; no `ip`"
        );
        assert_eq!(lines.last(), Some(&"128 passed, 2 failed"));
    }
}
